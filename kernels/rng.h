// Counter-based random numbers: Philox 4x32-10.
//
// J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
// A number is a pure function of (key, counter), so it does not depend on how many threads or
// ranks draw it, nor on how many were drawn before. Everything here is safe to call from any thread.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/host_device.h"

namespace trireme {

/// Names one stream of random numbers. Equal keys give equal numbers.
struct RandomKey {
  std::uint64_t value = 0;
};

/// A bijective 64-bit mixer (the finalizer of SplitMix64: Steele, Lea, Flood, OOPSLA'14).
TRIREME_HOST_DEVICE constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

/// Returns the key of (seed, a, b), for example (seed, step, layer) or (seed, epoch, purpose).
constexpr RandomKey random_key(std::uint64_t seed, std::uint64_t a, std::uint64_t b) {
  return {mix64(mix64(mix64(seed) ^ a) ^ b)};
}

/// Returns the four independent uniform 32-bit numbers of counter (high, low).
TRIREME_HOST_DEVICE constexpr std::array<std::uint32_t, 4> philox(RandomKey key, std::uint64_t high,
                                                                  std::uint64_t low) {
  constexpr std::uint32_t kM0 = 0xD2511F53u, kM1 = 0xCD9E8D57u, kW0 = 0x9E3779B9u, kW1 = 0xBB67AE85u;
  std::uint32_t c0 = static_cast<std::uint32_t>(low), c1 = static_cast<std::uint32_t>(low >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(high), c3 = static_cast<std::uint32_t>(high >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(key.value), k1 = static_cast<std::uint32_t>(key.value >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(kM0) * c0;
    const std::uint64_t p1 = static_cast<std::uint64_t>(kM1) * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    k0 += kW0;
    k1 += kW1;
  }
  return {c0, c1, c2, c3};
}

/// Returns a number that is uniform in [0, 1), from 24 random bits.
TRIREME_HOST_DEVICE constexpr float to_unit_float(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

/// Returns a number that is uniform in [0, 1), from 53 random bits.
TRIREME_HOST_DEVICE constexpr double to_unit_double(std::uint32_t high, std::uint32_t low) {
  return static_cast<double>(((static_cast<std::uint64_t>(high) << 32) | low) >> 11) * 0x1p-53;
}

/// Returns an integer that is uniform in [0, bound), bound > 0, from 32 random bits. It uses Lemire's
/// multiply-shift; the bias is below bound / 2^32.
constexpr std::uint32_t to_bounded(std::uint32_t bits, std::uint32_t bound) {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(bits) * bound) >> 32);
}

}  // namespace trireme
