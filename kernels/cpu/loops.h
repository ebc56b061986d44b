// Loops over several strided views of one shape, with as few and as long inner loops as possible.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <utility>

#include "kernels/cpu/parallel.h"
#include "kernels/merged_views.h"
#include "kernels/visit.h"

namespace trireme::cpu {

/// Merged views, and a walk over them.
template <int N>
struct Loops : MergedViews<N> {
  using MergedViews<N>::MergedViews;
  using MergedViews<N>::dims, MergedViews<N>::shape, MergedViews<N>::strides;

  /// Calls body(offsets, count) for every inner run; offsets[v] and strides in elements.
  void run(FunctionRef<const std::array<std::int64_t, N>&, std::int64_t> body) const {
    const std::int64_t inner = shape[dims - 1];
    std::int64_t outer = 1;
    for (int d = 0; d + 1 < dims; ++d) outer *= shape[d];
    if (inner == 0 || outer == 0) return;
    if (outer == 1) {
      for_pieces(inner, kPiece, [&](std::int64_t begin, std::int64_t end) {
        std::array<std::int64_t, N> at;
        for (int v = 0; v < N; ++v) at[v] = begin * strides[v][dims - 1];
        body(at, end - begin);
      });
      return;
    }
    for_pieces(outer, std::max<std::int64_t>(1, kPiece / inner), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) body(this->offsets(i, 1), inner);
    });
  }

  std::int64_t inner_stride(int v) const { return strides[v][dims - 1]; }
};

/// A function of one argument with two forms that give the same bits: operator() takes any argument; inside()
/// takes only those up to kBound in absolute value, and vectorizes.
template <class Fn>
concept Bounded = requires {
  Fn::kBound;
};

/// Computes o[k] = fn.inside(in[k]) for `count` elements and returns true. If an element is NaN or beyond the
/// bound, it writes nothing and returns false.
template <class T, class Fn>
bool map_inside(const Fn& fn, std::int64_t count, T* o, const T* in) {
  int beyond = 0;
  for (std::int64_t k = 0; k < count; ++k) beyond |= !(std::fabs(in[k]) <= Fn::kBound);
  if (beyond != 0) return false;
  for (std::int64_t k = 0; k < count; ++k) o[k] = fn.inside(in[k]);
  return true;
}

/// Runs `count` elements, `step` elements apart in each array: out = fn(in...), computed in Compute<In>.
template <class Out, class... In, class Fn>
void map_run(const Fn& given, std::int64_t count, const std::array<std::int64_t, sizeof...(In) + 1>& step,
             Out* o, const In*... in) {
  // A copy that no store can reach: its scalars stay in registers, and choices that use them stay vectors.
  const Fn fn = given;
  constexpr int kInputs = sizeof...(In);
  const bool dense = std::all_of(step.begin(), step.end() - 1, [](std::int64_t s) { return s == 1; });
  const bool scalar_last = kInputs > 1 && step[kInputs] == 0;  // a scalar operand, most often
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const std::tuple<const In*...> p{in...};
    // One loop is enough for what is seldom long; the others may be turned into vector instructions.
    constexpr bool kFast = std::is_floating_point_v<Out> && (std::is_same_v<In, Compute<In>> && ...);
    const auto value = [&](auto... index) {
      return static_cast<Out>(fn(static_cast<Compute<In>>(std::get<I>(p)[index])...));
    };
    const auto all = [&](std::int64_t k, std::int64_t last) {
      return value((I + 1 == kInputs ? last : k)...);
    };
    if constexpr (kFast && Bounded<Fn>)
      if (dense && step[kInputs] == 1 && map_inside(fn, count, o, in...)) return;
    if (kFast && dense && step[kInputs] == 1) {
      for (std::int64_t k = 0; k < count; ++k) o[k] = all(k, k);
    } else if (kFast && dense && scalar_last) {
      for (std::int64_t k = 0; k < count; ++k) o[k] = all(k, 0);
    } else {
      for (std::int64_t k = 0; k < count; ++k) o[k * step[0]] = value((k * step[I + 1])...);
    }
  }
  (std::make_index_sequence<kInputs>());
}

/// out = fn(in...) element by element, computed in Compute<In>.
template <class Out, class... In, class Fn, class... Views>
void map(const Fn& fn, const View& out, const Views&... in) {
  constexpr int kInputs = sizeof...(In);
  std::array<std::int64_t, kInputs + 1> step;
  // What is small costs little more than this test.
  if (const std::int64_t count = out.numel();
      count <= kPiece && is_row_major(out) && (is_row_major(in) && ...)) {
    step.fill(1);
    return map_run<Out, In...>(fn, count, step, out.template as<Out>(), in.template as<In>()...);
  }
  const Loops<kInputs + 1> loops({&out, &in...});
  for (int v = 0; v <= kInputs; ++v) step[v] = loops.inner_stride(v);
  loops.run([&](const auto& at, std::int64_t count) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      map_run<Out, In...>(fn, count, step, out.template as<Out>() + at[0],
                          in.template as<In>() + at[I + 1]...);
    }
    (std::make_index_sequence<kInputs>());
  });
}

}  // namespace trireme::cpu
