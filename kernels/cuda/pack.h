// Neighbouring elements that one thread moves at once: a device's memory is fast for 16 bytes a thread.
// Include only from .cu files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/host_device.h"

namespace trireme::cuda {

// Before a loop over the elements of packs: on the device they stay in registers only if it is unrolled.
#if defined(__CUDACC__)
#define TRIREME_UNROLL _Pragma("unroll")
#else
#define TRIREME_UNROLL
#endif

inline constexpr std::size_t kPackBytes = 16;

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

template <int N, class T>
TRIREME_HOST_DEVICE Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <class T, int N>
TRIREME_HOST_DEVICE void store_pack(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

/// Returns true if packs may begin at `data`, or if it is null and therefore not used.
inline bool is_pack_aligned(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % kPackBytes == 0;
}

}  // namespace trireme::cuda
