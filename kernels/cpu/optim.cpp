// Optimizer updates: one pass over memory, and one parallel loop, for all parameters together.
#include <algorithm>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/optim_step.h"

namespace trireme::cpu {

namespace {

/// Calls fn(slice, begin, end, T{}) for pieces of all slices, on all threads.
template <class Fn>
void for_slices(const char* op, std::span<const OptimizerSlice> slices, const Fn& fn) {
  struct Piece {
    const OptimizerSlice* slice;
    std::int64_t begin, end;
  };
  std::vector<Piece> pieces;
  for (const OptimizerSlice& slice : slices) {
    if (slice.halted && *slice.halted) continue;
    for (std::int64_t at = 0, count = slice.parameter.numel(); at < count; at += kPiece)
      pieces.push_back({&slice, at, std::min(count, at + kPiece)});
  }
  for_pieces(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t i, std::int64_t) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    visit_floating(piece.slice->parameter.dtype, op,
                   [&](auto type) { fn(*piece.slice, piece.begin, piece.end, type); });
  });
}

}  // namespace

void sgd(std::span<const OptimizerSlice> slices, const SgdOptions& o) {
  for_slices("sgd", slices, [&](const OptimizerSlice& s, std::int64_t begin, std::int64_t end, auto type) {
    using T = decltype(type);
    const SgdStep<T> step(o, s);
    T *p = s.parameter.as<T>(), *v = s.first.as<T>();
    const T* g = s.gradient.as<T>();
    if (o.momentum == 0)
      for (std::int64_t i = begin; i < end; ++i) step.plain(p[i], g[i]);
    else
      for (std::int64_t i = begin; i < end; ++i) step.with_momentum(p[i], g[i], v[i]);
  });
}

void adamw(std::span<const OptimizerSlice> slices, const AdamWOptions& o) {
  for_slices("adamw", slices, [&](const OptimizerSlice& s, std::int64_t begin, std::int64_t end, auto type) {
    using T = decltype(type);
    const AdamWStep<T> step(o, s);
    T *p = s.parameter.as<T>(), *m = s.first.as<T>(), *v = s.second.as<T>();
    const T* g = s.gradient.as<T>();
    for (std::int64_t i = begin; i < end; ++i) step.update(p[i], g[i], m[i], v[i]);
  });
}

void running_average(std::span<const RunningSlice> slices, const std::int64_t* halted) {
  for (const RunningSlice& s : slices) {
    if (!(*s.weight > 0) || *halted) continue;
    const RunningStep step{*s.weight, *s.momentum};
    for (std::int64_t i = 0; i < s.running.numel(); ++i)
      step.update(s.running.as<float>()[i], s.values.as<float>()[i]);
  }
}

}  // namespace trireme::cpu
