// Random numbers: each element's number is a pure function of its key and place.
#include <cmath>
#include <numbers>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {

void dropout(const View& out, const View& in, double p, RandomKey key, std::int64_t first_sample) {
  const std::int64_t samples = in.dims ? in.shape[0] : 1;
  const std::int64_t width = samples ? in.numel() / samples : 0;
  // Keep when bits >= p * 2^32: exact, without converting each number.
  const auto threshold = static_cast<std::uint64_t>(p * 0x1p32);
  visit_floating(in.dtype, "dropout", [&](auto type) {
    using T = decltype(type);
    const T scale = p < 1 ? static_cast<T>(1 / (1 - p)) : T(0);
    for_pieces(samples, std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t s = begin; s < end; ++s) {
                   const T* x = in.as<T>() + s * width;
                   T* y = out.as<T>() + s * width;
                   for (std::int64_t e = 0; e < width; e += 4) {
                     const auto bits =
                         philox(key, static_cast<std::uint64_t>(first_sample) + static_cast<std::uint64_t>(s),
                                static_cast<std::uint64_t>(e / 4));
                     for (std::int64_t k = 0; k < std::min<std::int64_t>(4, width - e); ++k)
                       y[e + k] = bits[static_cast<std::size_t>(k)] >= threshold ? x[e + k] * scale : T(0);
                   }
                 }
               });
  });
}

void uniform(const View& out, RandomKey key, double low, double high) {
  visit_floating(out.dtype, "uniform", [&](auto type) {
    using T = decltype(type);
    const std::int64_t count = out.numel();
    for (std::int64_t e = 0; e < count; ++e) {
      const auto bits = philox(key, 0, static_cast<std::uint64_t>(e));
      const T value = static_cast<T>(low + (high - low) * to_unit_double(bits[0], bits[1]));
      // Rounding may reach the end that is left out.
      out.as<T>()[e] =
          value < static_cast<T>(high) ? value : std::nextafter(static_cast<T>(high), static_cast<T>(low));
    }
  });
}

void normal(const View& out, RandomKey key, double mean, double std) {
  visit_floating(out.dtype, "normal", [&](auto type) {
    using T = decltype(type);
    const std::int64_t count = out.numel();
    for (std::int64_t e = 0; e < count; ++e) {
      // Box and Muller, "A note on the generation of random normal deviates", 1958; 1-u is never 0.
      const auto bits = philox(key, 0, static_cast<std::uint64_t>(e));
      const double u = 1 - to_unit_double(bits[0], bits[1]), v = to_unit_double(bits[2], bits[3]);
      out.as<T>()[e] =
          static_cast<T>(mean + std * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
    }
  });
}

}  // namespace trireme::cpu
