// Stands in for kernels/cuda/launch.h: functors run on the CPU when their stream is waited for. Lanes of a
// warp are fibers that meet at each call on their Warp.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>

#include "kernels/cuda/memory.h"
#include "kernels/host_device.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace trireme::cuda {

inline constexpr int kWarp = 32;

class Warp {
 public:
  explicit Warp(int lane) : lane_(lane) {}
  int lane() const { return lane_; }

  template <class T, class Join>
  T all(T value, const Join& join) const {
    static_assert(sizeof(T) <= sizeof(emulator::Slot));
    for (int half = kWarp / 2; half > 0; half /= 2) {
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

template <class Fn>
void parallel_for(std::int64_t count, const Fn& fn) {
  // From the end: a functor must not count on an order.
  emulator::enqueue(stream(), [count, fn] {
    for (std::int64_t i = count; i-- > 0;) fn(i);
  });
}

template <class Fn>
void parallel_warps(std::int64_t count, const Fn& fn) {
  emulator::enqueue(stream(), [count, fn] {
    for (std::int64_t i = count; i-- > 0;) emulator::run_lanes(kWarp, [&](int lane) { fn(i, Warp(lane)); });
  });
}

}  // namespace trireme::cuda
