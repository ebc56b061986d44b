// Replaces kernels/cuda/launch.h in the emulator. Functors run on the CPU when the host waits for their
// stream. The lanes of a warp are fibers that synchronize in Warp::all() and Warp::sum().
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "kernels/cuda/recorder.h"
#include "kernels/host_device.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace trireme::cuda {

inline constexpr int kWarp = 32;

class Warp {
 public:
  explicit Warp(int lane) : lane_(lane) {}
  int lane() const { return lane_; }

  template <class T, class Join>
  T all(T value, const Join& join, int apart = 1) const {
    static_assert(sizeof(T) <= sizeof(emulator::Slot));
    for (int half = kWarp / 2; half >= apart; half /= 2) {
      emulator::Slot mine{}, theirs;
      std::memcpy(&mine, &value, sizeof value);
      theirs = emulator::exchange(lane_, mine, lane_ ^ half);
      T other;
      std::memcpy(&other, &theirs, sizeof other);
      value = lane_ & half ? join(other, value) : join(value, other);
    }
    return value;
  }
  template <class T>
  T sum(T value) const {
    return all(value, [](T a, T b) { return a + b; });
  }

 private:
  int lane_;
};

namespace detail {

// Runs the threads in reverse order, because a functor must not depend on their order.
template <class Fn>
void run_threads(std::int64_t count, const void* functor) {
  const Fn& fn = *static_cast<const Fn*>(functor);
  for (std::int64_t i = count; i-- > 0;) fn(i);
}

template <class Fn>
void run_warps(std::int64_t count, const void* functor) {
  const Fn& fn = *static_cast<const Fn*>(functor);
  for (std::int64_t i = count; i-- > 0;) emulator::run_lanes(kWarp, [&](int lane) { fn(i, Warp(lane)); });
}

template <class Fn>
void start(emulator::KernelFunction function, std::int64_t count, const Fn& fn) {
  static_assert(std::is_trivially_copyable_v<Fn>);
  enqueue(Kernel{reinterpret_cast<const void*>(function), 1, 1, count, std::as_bytes(std::span(&fn, 1))});
}

}  // namespace detail

template <class Fn>
void parallel_for(std::int64_t count, const Fn& fn) {
  if (count > 0) detail::start(detail::run_threads<Fn>, count, fn);
}

template <class Fn>
void parallel_warps(std::int64_t count, const Fn& fn) {
  if (count > 0) detail::start(detail::run_warps<Fn>, count, fn);
}

}  // namespace trireme::cuda
