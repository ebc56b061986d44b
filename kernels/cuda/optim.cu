// Optimizer updates and running averages: one launch for all tensors together.
#include <algorithm>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/memory.h"
#include "kernels/optim_step.h"

namespace trireme::cuda {

namespace {

constexpr std::int64_t kPiece = 1024;  // elements of one warp

/// Arrays that are updated together. They are cut into pieces, which are numbered over all slices.
template <class T>
struct Slice {
  T *p, *first, *second;
  const T* g;
  std::int64_t count, first_piece;
};

/// fn(slice, element) for the elements of piece i.
template <class S, class Fn>
TRIREME_HOST_DEVICE void for_piece(const S* slices, std::int64_t count, std::int64_t i, const Warp& warp,
                                   const Fn& fn) {
  std::int64_t low = 0, high = count - 1;  // the last slice that begins at i or before
  while (low < high) {
    const std::int64_t middle = (low + high + 1) / 2;
    if (slices[middle].first_piece <= i)
      low = middle;
    else
      high = middle - 1;
  }
  const S slice = slices[low];  // a copy, which stores cannot change
  const std::int64_t begin = (i - slice.first_piece) * kPiece;
  const std::int64_t end = begin + kPiece < slice.count ? begin + kPiece : slice.count;
  for (std::int64_t k = begin + warp.lane(); k < end; k += kWarp) fn(slice, k);
}

template <class T>
struct RunSgd {
  const Slice<T>* slices;
  std::int64_t count;
  const std::int64_t* halted;
  SgdStep<T> step;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    if (halted && *halted) return;
    for_piece(slices, count, i, warp, [this](const Slice<T>& slice, std::int64_t k) {
      if (slice.first)
        step.with_momentum(slice.p[k], slice.g[k], slice.first[k]);
      else
        step.plain(slice.p[k], slice.g[k]);
    });
  }
};

template <class T>
struct RunAdamW {
  const Slice<T>* slices;
  std::int64_t count;
  const std::int64_t* halted;
  AdamWStep<T> step;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    if (halted && *halted) return;
    for_piece(slices, count, i, warp, [this](const Slice<T>& slice, std::int64_t k) {
      step.update(slice.p[k], slice.g[k], slice.first[k], slice.second[k]);
    });
  }
};

/// Launches one kernel for all slices that have the same count of steps. The addresses of slices are the same
/// in every step, so the device keeps them. The learning rate and the count change, so they are parameters of
/// the kernel.
template <class T, class Step, class Run, class Options>
void run(std::span<const OptimizerSlice> given, const Options& options, bool with_state) {
  std::vector<std::int64_t> counts;
  for (const OptimizerSlice& s : given)
    if (s.parameter.dtype == dtype_of<T> && std::ranges::find(counts, s.step) == counts.end())
      counts.push_back(s.step);
  for (const std::int64_t steps : counts) {
    std::vector<Slice<T>> slices;
    const OptimizerSlice* any = nullptr;
    std::int64_t pieces = 0;
    for (const OptimizerSlice& s : given) {
      const std::int64_t count = s.parameter.numel();
      if (s.parameter.dtype != dtype_of<T> || s.step != steps || count == 0) continue;
      slices.push_back({s.parameter.as<T>(), with_state ? s.first.as<T>() : nullptr, s.second.as<T>(),
                        s.gradient.as<T>(), count, pieces});
      pieces += (count + kPiece - 1) / kPiece;
      any = &s;
    }
    if (slices.empty()) continue;
    const auto* const table = static_cast<const Slice<T>*>(kept_on_device(std::as_bytes(std::span(slices))));
    parallel_warps(pieces, Run{table, std::ssize(slices), any->halted, Step(options, *any)});
  }
}

struct Running {
  float* running;
  const float *values, *weight, *momentum;
  std::int64_t count, first_piece;
};

struct RunAverage {
  const Running* slices;
  std::int64_t count;
  const std::int64_t* halted;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    if (*halted) return;
    for_piece(slices, count, i, warp, [](const Running& slice, std::int64_t k) {
      if (*slice.weight > 0)
        RunningStep(*slice.weight, *slice.momentum).update(slice.running[k], slice.values[k]);
    });
  }
};

}  // namespace

void sgd(std::span<const OptimizerSlice> slices, const SgdOptions& o) {
  run<float, SgdStep<float>, RunSgd<float>>(slices, o, o.momentum != 0);
  run<double, SgdStep<double>, RunSgd<double>>(slices, o, o.momentum != 0);
}

void adamw(std::span<const OptimizerSlice> slices, const AdamWOptions& o) {
  run<float, AdamWStep<float>, RunAdamW<float>>(slices, o, true);
  run<double, AdamWStep<double>, RunAdamW<double>>(slices, o, true);
}

void running_average(std::span<const RunningSlice> given, const std::int64_t* halted) {
  std::vector<Running> slices;
  std::int64_t pieces = 0;
  for (const RunningSlice& s : given) {
    const std::int64_t count = s.running.numel();
    slices.push_back({s.running.as<float>(), s.values.as<float>(), s.weight, s.momentum, count, pieces});
    pieces += (count + kPiece - 1) / kPiece;
  }
  if (slices.empty()) return;
  const void* const table = kept_on_device(std::as_bytes(std::span(slices)));
  parallel_warps(pieces, RunAverage{static_cast<const Running*>(table), std::ssize(slices), halted});
}

}  // namespace trireme::cuda
