// out = fn(in...) element by element on the device. Include only from .cu files.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.h"
#include "kernels/merged_views.h"

namespace trireme::cuda {

template <class Out, class Fn, class... In>
struct MapDense {
  static constexpr int kAtOnce =
      static_cast<int>(std::max<std::size_t>(1, kPackBytes / std::max({sizeof(Out), sizeof(In)...})));
  static constexpr int kInputs = sizeof...(In);
  Fn fn;
  std::int64_t count;
  Out* out;
  const void* in[kInputs];

  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const { run(i, std::make_index_sequence<kInputs>()); }

  template <std::size_t... I>
  TRIREME_HOST_DEVICE void run(std::int64_t i, std::index_sequence<I...>) const {
    const std::int64_t begin = i * kAtOnce;
    if (begin + kAtOnce <= count) {
      Pack<Out, kAtOnce> result;
      each(result, load_pack<kAtOnce>(static_cast<const In*>(in[I]) + begin)...);
      store_pack(out + begin, result);
    } else {
      for (std::int64_t k = begin; k < count; ++k)
        out[k] = static_cast<Out>(fn(static_cast<Compute<In>>(static_cast<const In*>(in[I])[k])...));
    }
  }

  TRIREME_HOST_DEVICE void each(Pack<Out, kAtOnce>& result, Pack<In, kAtOnce>... packs) const {
    for (int k = 0; k < kAtOnce; ++k)
      result.values[k] = static_cast<Out>(fn(static_cast<Compute<In>>(packs.values[k])...));
  }
};

template <class Out, class Fn, class... In>
struct MapStrided {
  static constexpr int kInputs = sizeof...(In);
  Fn fn;
  MergedViews<kInputs + 1> views;
  Out* out;
  const void* in[kInputs];

  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const { run(i, std::make_index_sequence<kInputs>()); }

  template <std::size_t... I>
  TRIREME_HOST_DEVICE void run(std::int64_t i, std::index_sequence<I...>) const {
    const auto at = views.offsets(i);
    out[at[0]] = static_cast<Out>(fn(static_cast<Compute<In>>(static_cast<const In*>(in[I])[at[I + 1]])...));
  }
};

/// Views of one shape, broadcast by zero strides; computed in Compute<In>.
template <class Out, class... In, class Fn, class... Views>
void map(const Fn& fn, const View& out, const Views&... in) {
  constexpr int kInputs = sizeof...(In);
  const MergedViews<kInputs + 1> views(std::array<const View*, kInputs + 1>{&out, &in...});
  const std::int64_t count = views.numel();
  if (views.is_dense() && is_pack_aligned(out.data) && (is_pack_aligned(in.data) && ...)) {
    using Dense = MapDense<Out, Fn, In...>;
    parallel_for((count + Dense::kAtOnce - 1) / Dense::kAtOnce,
                 Dense{fn, count, out.template as<Out>(), {in.data...}});
  } else {
    parallel_for(count, MapStrided<Out, Fn, In...>{fn, views, out.template as<Out>(), {in.data...}});
  }
}

}  // namespace trireme::cuda
