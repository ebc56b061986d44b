// The parts of cross entropy of a row of logits that are the same on every device.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/vector_math.h"

namespace trireme {

/// Returns the number that label smoothing subtracts from a row's logits: the logit of the label. The sum of
/// large logits themselves would lose their differences. If the logit is -infinity or NaN, the number is 0,
/// so that a label of probability 0 gives infinity and not NaN.
template <class T>
TRIREME_HOST_DEVICE inline double smoothing_origin(T label_logit) {
  return static_cast<double>(label_logit >= std::numeric_limits<T>::lowest() ? label_logit : T(0));
}

/// Returns the cross entropy of a row. `sum` is the sum of e^(logit - largest), and `excess` the sum of
/// logit - smoothing_origin(), which only smoothing needs.
template <class T>
TRIREME_HOST_DEVICE inline double cross_entropy_of(T largest, double sum, double excess, T label_logit,
                                                   double smoothing, std::int64_t width) {
  const double loss = std::log(sum) + (static_cast<double>(largest) - static_cast<double>(label_logit));
  return smoothing != 0 ? loss - smoothing / static_cast<double>(width) * excess : loss;
}

/// Computes the gradient of a row's logits: (e^(logit - largest) / sum - smoothing / width) * dloss, with
/// 1 - smoothing less in the parentheses at the label. A row has two normalizers: its largest logit, and
/// sum - 1, which is the sum over all logits except one that is the largest. Where the label's logit is the
/// largest and nothing is smoothed, the label's gradient is computed as -(sum - 1) / sum * dloss, because the
/// difference of a probability near 1 and 1 would lose its digits.
template <class T>
struct CrossEntropySlope {
  T largest, others, scale, spread, hit;
  TRIREME_INLINE CrossEntropySlope(const T* normalizer, double smoothing, std::int64_t width, T dloss)
      : largest(normalizer[0]),
        others(normalizer[1]),
        scale(dloss / (normalizer[1] + T(1))),
        spread(smoothing != 0 ? static_cast<T>(smoothing / static_cast<double>(width)) * dloss : T(0)),
        hit(static_cast<T>(1 - smoothing) * dloss) {}
  TRIREME_INLINE T operator()(T logit) const { return fast_exp(logit - largest) * scale - spread; }
  TRIREME_INLINE T at_label(T logit) const {
    if (logit != largest || spread != T(0)) return (*this)(logit)-hit;
    return (hit - hit) - others * scale;  // hit - hit makes it NaN where dloss is infinite
  }
};

}  // namespace trireme
