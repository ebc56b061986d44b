// Cross entropy: a warp for each row of logits, whose memory is read once, forward and backward. Forward
// keeps the largest logit and the sum of exponentials as it goes: M. Milakov, N. Gimelshein, "Online
// normalizer calculation for softmax", 2018.
#include <cstring>
#include <utility>

#include "kernels/cross_entropy.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.h"
#include "kernels/low_precision.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

/// fn(0) ... fn(N - 1). Compilers leave some loops as loops, whose arrays then lie in memory: registers have
/// no addresses.
template <int N, class Fn>
TRIREME_HOST_DEVICE void unrolled(const Fn& fn) {
  [&]<int... I>(std::integer_sequence<int, I...>) { (fn(I), ...); }
  (std::make_integer_sequence<int, N>());
}

template <class In, int N>
TRIREME_HOST_DEVICE Pack<Compute<In>, N> computed(const Pack<In, N>& pack) {
  Pack<Compute<In>, N> result;
  unrolled<N>([&](int i) { result.values[i] = static_cast<Compute<In>>(pack.values[i]); });
  return result;
}

/// N elements from anywhere: rows of odd width begin between packs. Whole packs are loaded, which hold at
/// least one of the elements each, and moved down to the first.
template <int N, class T>
TRIREME_HOST_DEVICE Pack<T, N> load_across(const T* from) {
  constexpr int kEach = kPackBytes / sizeof(T), kPacks = N / kEach, kWords = (kPacks + 1) * 4;
  const auto past = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) % kPackBytes);
  const T* const begin = from - past / static_cast<int>(sizeof(T));
  std::uint32_t words[kWords] = {};
  for (int i = 0; i <= kPacks; ++i) {
    if (i == kPacks && past == 0) continue;
    const auto pack = load_pack<kEach>(begin + i * kEach);
    std::memcpy(words + 4 * i, &pack, sizeof pack);
  }
  if (past & 8)
    for (int i = 0; i + 2 < kWords; ++i) words[i] = words[i + 2];
  if (past & 4)
    for (int i = 0; i + 1 < kWords; ++i) words[i] = words[i + 1];
  if (past & 2)
    for (int i = 0; i + 1 < kWords; ++i) words[i] = words[i] >> 16 | words[i + 1] << 16;
  Pack<T, N> result;
  std::memcpy(&result, words, sizeof result);
  return result;
}

/// The partial results of a lane for its elements of a row.
template <class T>
struct Seen {
  T largest =
      std::numeric_limits<T>::lowest();  ///< the start keeps differences from being NaN if all are -infinity
  double sum = 0;                        ///< the sum of e^(logit - largest)
  double excess = 0;                     ///< see smoothing_origin()

  template <int N>
  TRIREME_HOST_DEVICE void add(const Pack<T, N>& logits) {
    T most = largest;
    for (const T logit : logits.values) most = logit > most ? logit : most;
    if (most > largest) {
      sum *= static_cast<double>(fast_exp(largest - most));
      largest = most;
    }
    for (const T logit : logits.values) sum += static_cast<double>(fast_exp(logit - largest));
  }
  template <int N>
  TRIREME_HOST_DEVICE void add_excess(const Pack<T, N>& logits, double origin) {
    for (const T logit : logits.values) excess += static_cast<double>(logit) - origin;
  }
};

/// Which elements a lane takes, and so the order of sums, is a function of the width alone, whatever the type
/// of the logits and where their rows begin.
template <class In, class T = Compute<In>>
struct CrossEntropyForward {
  static constexpr int kEach = 8, kStep = kEach * kWarp;
  static constexpr int kAhead = 8 / static_cast<int>(sizeof(In));  ///< loads of several packs are under way
  const In* logits;
  const std::int64_t* labels;
  T *losses, *normalizers;
  std::int64_t width;
  double smoothing;

  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const In* row = logits + r * width;
    const T label_logit = static_cast<T>(row[labels[r]]);
    const Seen<T> mine = seen_by_lane(row, warp.lane(), smoothing_origin(label_logit));
    const T largest = warp.all(mine.largest, [](T a, T b) { return a > b ? a : b; });
    const double sum = warp.sum(mine.sum * static_cast<double>(fast_exp(mine.largest - largest)));
    const double excess = smoothing != 0 ? warp.sum(mine.excess) : 0;
    if (warp.lane() != 0) return;
    losses[r] = static_cast<T>(cross_entropy_of(largest, sum, excess, label_logit, smoothing, width));
    normalizers[2 * r] = largest;
    normalizers[2 * r + 1] = static_cast<T>(sum - 1);
  }

  TRIREME_HOST_DEVICE Seen<T> seen_by_lane(const In* row, int lane, double origin) const {
    Seen<T> seen;
    const auto add = [&](const auto& pack) {
      const auto values = computed(pack);
      seen.add(values);
      if (smoothing != 0) seen.add_excess(values, origin);
    };
    const std::int64_t end = width - width % kEach;
    std::int64_t k = lane * kEach;
    for (; k + (kAhead - 1) * kStep < end; k += kAhead * kStep) {
      Pack<In, kEach> loaded[kAhead];
      unrolled<kAhead>([&](int a) { loaded[a] = load_across<kEach>(row + k + a * kStep); });
      unrolled<kAhead>([&](int a) { add(loaded[a]); });
    }
    for (; k < end; k += kStep) add(load_across<kEach>(row + k));
    if (end + lane < width) add(load_pack<1>(row + end + lane));
    return seen;
  }
};

/// Packs of dx, whose logits may lie otherwise.
template <class In, class T = Compute<In>>
struct CrossEntropyBackward {
  static constexpr int kEach = kPackBytes / sizeof(In), kStep = kEach * kWarp, kAhead = 4;
  In* dx;
  const In* logits;
  const T *dlosses, *normalizers;
  const std::int64_t* labels;
  std::int64_t width;
  double smoothing;

  TRIREME_HOST_DEVICE void operator()(std::int64_t r, const Warp& warp) const {
    const In* row = logits + r * width;
    In* to = dx + r * width;
    const std::int64_t label = labels[r];
    const CrossEntropySlope<T> slope(normalizers + 2 * r, smoothing, width, dlosses[r]);
    const auto put = [&](std::int64_t k, const auto& pack) {
      store_pack(to + k, gradient(pack, slope, label - k));
    };
    const auto past = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) / sizeof(In) % kEach);
    const std::int64_t head = (kEach - past) % kEach, end = head + (width - head) / kEach * kEach;
    std::int64_t k = head + warp.lane() * kEach;
    for (; k + (kAhead - 1) * kStep < end; k += kAhead * kStep) {
      Pack<In, kEach> loaded[kAhead];
      unrolled<kAhead>([&](int a) { loaded[a] = load_across<kEach>(row + k + a * kStep); });
      unrolled<kAhead>([&](int a) { put(k + a * kStep, loaded[a]); });
    }
    for (; k < end; k += kStep) put(k, load_across<kEach>(row + k));
    // Fewer than two packs are left, and lie before and behind the others.
    k = warp.lane() < head ? warp.lane() : end + warp.lane() - head;
    if (k < width) put(k, load_pack<1>(row + k));
  }

  template <int N>
  TRIREME_HOST_DEVICE static Pack<In, N> gradient(const Pack<In, N>& logits,
                                                  const CrossEntropySlope<T>& slope, std::int64_t label) {
    const Pack<T, N> x = computed(logits);
    Pack<In, N> out;
    unrolled<N>([&](int i) { out.values[i] = static_cast<In>(slope(x.values[i])); });
    if (label >= 0 && label < N)
      unrolled<N>([&](int i) {
        if (i == label) out.values[i] = static_cast<In>(slope.at_label(x.values[i]));
      });
    return out;
  }
};

}  // namespace

void cross_entropy_forward(const View& losses, const View& normalizers, const View& logits,
                           const View& labels, double smoothing) {
  visit_any_floating(logits.dtype, "cross_entropy", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    parallel_warps(logits.shape[0],
                   CrossEntropyForward<In>{logits.as<In>(), labels.as<std::int64_t>(), losses.as<T>(),
                                           normalizers.as<T>(), logits.shape[1], smoothing});
  });
}

void cross_entropy_backward(const View& dx, const View& dlosses, const View& logits, const View& normalizers,
                            const View& labels, double smoothing) {
  visit_any_floating(dx.dtype, "cross_entropy", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    parallel_warps(dx.shape[0], CrossEntropyBackward<In>{dx.as<In>(), logits.as<In>(), dlosses.as<T>(),
                                                         normalizers.as<T>(), labels.as<std::int64_t>(),
                                                         dx.shape[1], smoothing});
  });
}

}  // namespace trireme::cuda
