// Optimizer updates: one launch for all parameters together.
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/optim_step.h"

namespace trireme::cuda {

namespace {

constexpr std::int64_t kPiece = 1024;  // elements of one warp

/// A slice, cut into pieces that are numbered through all slices, with what its step does.
template <class T, class Step>
struct Slice {
  T *p, *first, *second;
  const T* g;
  std::int64_t count, first_piece;
  Step step;
};

/// fn(slice, element) for the elements of piece i.
template <class T, class Step, class Fn>
TRIREME_HOST_DEVICE void for_piece(const Slice<T, Step>* slices, std::int64_t count, std::int64_t i,
                                   const Warp& warp, const Fn& fn) {
  std::int64_t low = 0, high = count - 1;  // the last slice that begins at i or before
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    if (slices[middle].first_piece <= i)
      low = middle;
    else
      high = middle - 1;
  }
  const Slice<T, Step> slice = slices[low];  // a copy, which stores cannot change
  const std::int64_t begin = (i - slice.first_piece) * kPiece;
  const std::int64_t end = begin + kPiece < slice.count ? begin + kPiece : slice.count;
  for (std::int64_t k = begin + warp.lane(); k < end; k += kWarp) fn(slice, k);
}

template <class T>
struct RunSgd {
  const Slice<T, SgdStep<T>>* slices;
  std::int64_t count;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    for_piece(slices, count, i, warp, [](const auto& slice, std::int64_t k) {
      if (slice.first)
        slice.step.with_momentum(slice.p[k], slice.g[k], slice.first[k]);
      else
        slice.step.plain(slice.p[k], slice.g[k]);
    });
  }
};

template <class T>
struct RunAdamW {
  const Slice<T, AdamWStep<T>>* slices;
  std::int64_t count;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    for_piece(slices, count, i, warp, [](const auto& slice, std::int64_t k) {
      slice.step.update(slice.p[k], slice.g[k], slice.first[k], slice.second[k]);
    });
  }
};

/// Slices of type T only.
template <class T, class Step, template <class> class Run, class Options>
void run(std::span<const OptimizerSlice> given, const Options& options, bool with_state) {
  std::vector<Slice<T, Step>> slices;
  std::int64_t pieces = 0;
  for (const OptimizerSlice& s : given) {
    const std::int64_t count = s.parameter.numel();
    if (s.parameter.dtype != dtype_of<T> || count == 0) continue;
    slices.push_back({s.parameter.as<T>(), with_state ? s.first.as<T>() : nullptr, s.second.as<T>(),
                      s.gradient.as<T>(), count, pieces, Step(options, s)});
    pieces += (count + kPiece - 1) / kPiece;
  }
  if (slices.empty()) return;
  const std::size_t bytes = slices.size() * sizeof slices[0];
  const Scratch table(bytes);
  upload(table.as<void>(), slices.data(), bytes);
  parallel_warps(pieces, Run<T>{table.as<Slice<T, Step>>(), static_cast<std::int64_t>(slices.size())});
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
