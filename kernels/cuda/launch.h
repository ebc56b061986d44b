// The two ways to run a functor on the device: one thread, or one warp, for each index.
//
// A functor is a struct with a TRIREME_HOST_DEVICE operator(), captured by value; it may be called in any
// order and must not let its result depend on it. Nothing else of kernels/cuda knows about grids, so that
// tests can run every functor on the CPU (tests/support/cuda_emulator has a launch.h of its own). Include
// only from .cu.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "kernels/cuda/recorder.h"
#include "kernels/host_device.h"

namespace trireme::cuda {

inline constexpr int kWarp = 32;  ///< lanes

/// The lanes that work on one index together. All of them make each call.
class Warp {
 public:
  TRIREME_HOST_DEVICE explicit Warp(int lane) : lane_(lane) {}
  TRIREME_HOST_DEVICE int lane() const { return lane_; }

  /// join(...) of the values of all lanes that are a multiple of `apart`, a power of two, away from each
  /// other; in a fixed tree, the same on all of them.
  template <class T, class Join>
  TRIREME_HOST_DEVICE T all(T value, const Join& join, int apart = 1) const {
#if defined(__CUDA_ARCH__)
    for (int half = kWarp / 2; half >= apart; half /= 2) {
      // Lower lane first, so that both partners get the same bits.
      const T other = from_lane(value, half);
      value = lane_ & half ? join(other, value) : join(value, other);
    }
#endif
    return value;
  }
  template <class T>
  TRIREME_HOST_DEVICE T sum(T value) const {
    return all(value, [](T a, T b) { return a + b; });
  }

 private:
  /// The value of the lane whose number differs in the bit `half`.
  template <class T>
  TRIREME_HOST_DEVICE static T from_lane(const T& value, int half) {
    static_assert(sizeof(T) % sizeof(unsigned) == 0);
    T other = value;
#if defined(__CUDA_ARCH__)
    unsigned words[sizeof(T) / sizeof(unsigned)];
    memcpy(words, &value, sizeof(T));
    for (unsigned& word : words) word = __shfl_xor_sync(0xffffffffu, word, half);
    memcpy(&other, words, sizeof(T));
#endif
    return other;
  }

  int lane_;
};

namespace detail {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 16;  ///< further indices are taken by the same threads again

template <class Fn>
__global__ void __launch_bounds__(kThreads) run_threads(std::int64_t count, Fn fn) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step)
    fn(i);
}

template <class Fn>
__global__ void __launch_bounds__(kThreads) run_warps(std::int64_t count, Fn fn) {
  constexpr int kEach = kThreads / kWarp;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kEach;
  const Warp warp(static_cast<int>(threadIdx.x) % kWarp);
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kEach + threadIdx.x / kWarp; i < count;
       i += step)
    fn(i, warp);
}

inline unsigned blocks_for(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>(std::min((count + each - 1) / each, kMaxBlocks));
}

template <class Fn>
void start(void (*function)(std::int64_t, Fn), unsigned blocks, std::int64_t count, const Fn& fn) {
  static_assert(std::is_trivially_copyable_v<Fn>);
  enqueue(Kernel{reinterpret_cast<const void*>(function), blocks, kThreads, count,
                 std::as_bytes(std::span(&fn, 1))});
}

}  // namespace detail

/// fn(i) for i in 0..count-1, enqueued.
template <class Fn>
void parallel_for(std::int64_t count, const Fn& fn) {
  if (count <= 0) return;
  detail::start(detail::run_threads<Fn>, detail::blocks_for(count, detail::kThreads), count, fn);
}

/// fn(i, warp) by each lane of a warp for i in 0..count-1, enqueued.
template <class Fn>
void parallel_warps(std::int64_t count, const Fn& fn) {
  if (count <= 0) return;
  detail::start(detail::run_warps<Fn>, detail::blocks_for(count, detail::kThreads / kWarp), count, fn);
}

}  // namespace trireme::cuda
