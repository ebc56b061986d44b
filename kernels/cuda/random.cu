// Random numbers: each element's number is a pure function of its key and place, the same as on the CPU
// (normal ones up to the last bits of log and cos).
#include <cmath>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.h"
#include "kernels/low_precision.h"
#include "kernels/rng.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

/// Four elements of one sample that share a draw. They may be of 16 bits: In is their type, T that of the
/// arithmetic.
template <class In, class T = Compute<In>>
struct Dropout {
  const In* in;
  In* out;
  std::int64_t width, fours;  ///< elements of a sample, and groups of four of them
  std::uint64_t threshold, first_sample;
  RandomKey key;
  T scale;
  bool packed;  ///< fours may be moved at once
  TRIREME_HOST_DEVICE In kept(In x, std::uint32_t draw) const {
    return draw >= threshold ? static_cast<In>(static_cast<T>(x) * scale) : In(0);
  }
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t s = i / fours, e = i % fours * 4;
    const auto bits =
        philox(key, first_sample + static_cast<std::uint64_t>(s), static_cast<std::uint64_t>(e / 4));
    if (packed) {
      Pack<In, 4> four = load_pack<4>(in + i * 4);
      TRIREME_UNROLL
      for (std::size_t k = 0; k < 4; ++k) four.values[k] = kept(four.values[k], bits[k]);
      return store_pack(out + i * 4, four);
    }
    for (std::int64_t k = 0; k < 4 && e + k < width; ++k) {
      const std::int64_t at = s * width + e + k;
      out[at] = kept(in[at], bits[static_cast<std::size_t>(k)]);
    }
  }
};

template <class T>
struct Uniform {
  T* out;
  RandomKey key;
  double low, high;
  T last;  ///< before high
  TRIREME_HOST_DEVICE void operator()(std::int64_t e) const {
    const auto bits = philox(key, 0, static_cast<std::uint64_t>(e));
    const T value = static_cast<T>(low + (high - low) * to_unit_double(bits[0], bits[1]));
    out[e] = value < static_cast<T>(high) ? value : last;  // rounding may reach the end that is left out
  }
};

template <class T>
struct Normal {
  T* out;
  RandomKey key;
  double mean, std;
  TRIREME_HOST_DEVICE void operator()(std::int64_t e) const {
    // Box and Muller, "A note on the generation of random normal deviates", 1958; 1-u is never 0.
    const auto bits = philox(key, 0, static_cast<std::uint64_t>(e));
    const double u = 1 - to_unit_double(bits[0], bits[1]), v = to_unit_double(bits[2], bits[3]);
    constexpr double kTwoPi = 6.283185307179586476925286766559;
    out[e] = static_cast<T>(mean + std * std::sqrt(-2 * std::log(u)) * std::cos(kTwoPi * v));
  }
};

}  // namespace

void dropout(const View& out, const View& in, double p, RandomKey key, std::int64_t first_sample) {
  const std::int64_t samples = in.dims ? in.shape[0] : 1, width = samples ? in.numel() / samples : 0;
  visit_any_floating(in.dtype, "dropout", [&](auto type) {
    using In = decltype(type);
    using T = Compute<In>;
    const std::int64_t fours = (width + 3) / 4;
    const auto is_aligned = [](const void* data) {
      return reinterpret_cast<std::uintptr_t>(data) % alignof(Pack<In, 4>) == 0;
    };
    parallel_for(
        samples * fours,
        Dropout<In>{in.as<In>(), out.as<In>(), width, fours, static_cast<std::uint64_t>(p * 0x1p32),
                    static_cast<std::uint64_t>(first_sample), key, p < 1 ? static_cast<T>(1 / (1 - p)) : T(0),
                    width % 4 == 0 && is_aligned(in.data) && is_aligned(out.data)});
  });
}

void uniform(const View& out, RandomKey key, double low, double high) {
  visit_floating(out.dtype, "uniform", [&](auto type) {
    using T = decltype(type);
    const T last = std::nextafter(static_cast<T>(high), static_cast<T>(low));
    parallel_for(out.numel(), Uniform<T>{out.as<T>(), key, low, high, last});
  });
}

void normal(const View& out, RandomKey key, double mean, double std) {
  visit_floating(out.dtype, "normal", [&](auto type) {
    using T = decltype(type);
    parallel_for(out.numel(), Normal<T>{out.as<T>(), key, mean, std});
  });
}

}  // namespace trireme::cuda
