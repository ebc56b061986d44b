// Optimizer updates: one launch for all parameters together.
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/optim_step.h"

namespace trireme::cuda {

namespace {

constexpr std::int64_t kPiece = 1024;  // elements of one warp

/// A stretch of one slice, with what its step does.
template <class T, class Step>
struct Piece {
  T *p, *first, *second;
  const T* g;
  std::int64_t count;
  Step step;
};

template <class T>
struct RunSgd {
  const Piece<T, SgdStep<T>>* pieces;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    const auto& piece = pieces[i];
    for (std::int64_t k = warp.lane(); k < piece.count; k += kWarp)
      if (piece.first)
        piece.step.with_momentum(piece.p[k], piece.g[k], piece.first[k]);
      else
        piece.step.plain(piece.p[k], piece.g[k]);
  }
};

template <class T>
struct RunAdamW {
  const Piece<T, AdamWStep<T>>* pieces;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    const auto& piece = pieces[i];
    for (std::int64_t k = warp.lane(); k < piece.count; k += kWarp)
      piece.step.update(piece.p[k], piece.g[k], piece.first[k], piece.second[k]);
  }
};

/// Slices of type T only.
template <class T, class Step, template <class> class Run, class Options>
void run(std::span<const OptimizerSlice> slices, const Options& options, bool with_state) {
  std::vector<Piece<T, Step>> pieces;
  for (const OptimizerSlice& s : slices) {
    if (s.parameter.dtype != dtype_of<T>) continue;
    const Step step(options, s);
    T* const first = with_state ? s.first.as<T>() : nullptr;
    T* const second = s.second.as<T>();
    for (std::int64_t at = 0, count = s.parameter.numel(); at < count; at += kPiece)
      pieces.push_back({s.parameter.as<T>() + at, first ? first + at : nullptr,
                        second ? second + at : nullptr, s.gradient.as<T>() + at, std::min(count - at, kPiece),
                        step});
  }
  if (pieces.empty()) return;
  const std::size_t bytes = pieces.size() * sizeof pieces[0];
  const Scratch table(bytes);
  upload(table.as<void>(), pieces.data(), bytes);
  parallel_warps(static_cast<std::int64_t>(pieces.size()), Run<T>{table.as<Piece<T, Step>>()});
}

}  // namespace

void sgd(std::span<const OptimizerSlice> slices, const SgdOptions& o) {
  run<float, SgdStep<float>, RunSgd>(slices, o, o.momentum != 0);
  run<double, SgdStep<double>, RunSgd>(slices, o, o.momentum != 0);
}

void adamw(std::span<const OptimizerSlice> slices, const AdamWOptions& o) {
  run<float, AdamWStep<float>, RunAdamW>(slices, o, true);
  run<double, AdamWStep<double>, RunAdamW>(slices, o, true);
}

}  // namespace trireme::cuda
