// The update of one element by each optimizer and by a running average, for every device.
#pragma once

#include <cmath>

#include "kernels/host_device.h"
#include "kernels/table.h"

namespace trireme {

/// Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning",
/// 2013, with the learning rate outside the velocity as PyTorch has it.
template <class T>
struct SgdStep {
  T lr, mu, decay;
  bool nesterov;

  SgdStep(const SgdOptions& o, const OptimizerSlice&)
      : lr(static_cast<T>(o.lr)),
        mu(static_cast<T>(o.momentum)),
        decay(static_cast<T>(o.weight_decay)),
        nesterov(o.nesterov) {}
  TRIREME_HOST_DEVICE void plain(T& p, T g) const { p -= lr * (g + decay * p); }
  TRIREME_HOST_DEVICE void with_momentum(T& p, T g, T& v) const {
    const T d = g + decay * p;
    v = mu * v + d;
    p -= lr * (nesterov ? d + mu * v : v);
  }
};

/// Loshchilov, Hutter, "Decoupled weight decay regularization", 2019.
template <class T>
struct AdamWStep {
  T b1, c1, b2, c2, step, root, eps, shrink;

  AdamWStep(const AdamWOptions& o, const OptimizerSlice& s)
      : b1(static_cast<T>(o.beta1)),
        c1(static_cast<T>(1 - o.beta1)),
        b2(static_cast<T>(o.beta2)),
        c2(static_cast<T>(1 - o.beta2)),
        step(static_cast<T>(o.lr / (1 - std::pow(o.beta1, static_cast<double>(s.step))))),
        root(static_cast<T>(1 / std::sqrt(1 - std::pow(o.beta2, static_cast<double>(s.step))))),
        eps(static_cast<T>(o.eps)),
        shrink(static_cast<T>(1 - o.lr * o.weight_decay)) {}
  TRIREME_HOST_DEVICE void update(T& p, T g, T& m, T& v) const {
    m = b1 * m + c1 * g;
    v = b2 * v + c2 * g * g;
    p = p * shrink - step * m / (std::sqrt(v) * root + eps);
  }
};

/// See KernelTable::running_average.
struct RunningStep {
  float weight, take, keep;

  TRIREME_HOST_DEVICE RunningStep(float w, float momentum) : weight(w), take(momentum / w), keep(1 - take) {}
  TRIREME_HOST_DEVICE void update(float& running, float values) const {
    running = running * keep + values / weight * take;
  }
};

}  // namespace trireme
