// Optimizer updates: one pass over memory, and one parallel loop, for all parameters together.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"

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
  for (const OptimizerSlice& slice : slices)
    for (std::int64_t at = 0, count = slice.parameter.numel(); at < count; at += kPiece)
      pieces.push_back({&slice, at, std::min(count, at + kPiece)});
  for_pieces(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t i, std::int64_t) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    visit_floating(piece.slice->parameter.dtype, op,
                   [&](auto type) { fn(*piece.slice, piece.begin, piece.end, type); });
  });
}

}  // namespace

// Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning",
// 2013, with the learning rate outside the velocity as PyTorch has it.
void sgd(std::span<const OptimizerSlice> slices, const SgdOptions& o) {
  for_slices("sgd", slices, [&](const OptimizerSlice& s, std::int64_t begin, std::int64_t end, auto type) {
    using T = decltype(type);
    const T lr = static_cast<T>(o.lr), mu = static_cast<T>(o.momentum),
            decay = static_cast<T>(o.weight_decay);
    T *p = s.parameter.as<T>(), *v = s.first.as<T>();
    const T* g = s.gradient.as<T>();
    if (o.momentum == 0) {
      for (std::int64_t i = begin; i < end; ++i) p[i] -= lr * (g[i] + decay * p[i]);
      return;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      const T d = g[i] + decay * p[i];
      v[i] = mu * v[i] + d;
      p[i] -= lr * (o.nesterov ? d + mu * v[i] : v[i]);
    }
  });
}

// Loshchilov, Hutter, "Decoupled weight decay regularization", 2019.
void adamw(std::span<const OptimizerSlice> slices, const AdamWOptions& o) {
  for_slices("adamw", slices, [&](const OptimizerSlice& s, std::int64_t begin, std::int64_t end, auto type) {
    using T = decltype(type);
    const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(s.step));
    const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(s.step));
    const T b1 = static_cast<T>(o.beta1), c1 = static_cast<T>(1 - o.beta1), b2 = static_cast<T>(o.beta2),
            c2 = static_cast<T>(1 - o.beta2);
    const T step = static_cast<T>(o.lr / correction1), root = static_cast<T>(1 / std::sqrt(correction2)),
            eps = static_cast<T>(o.eps), shrink = static_cast<T>(1 - o.lr * o.weight_decay);
    T *p = s.parameter.as<T>(), *m = s.first.as<T>(), *v = s.second.as<T>();
    const T* g = s.gradient.as<T>();
    for (std::int64_t i = begin; i < end; ++i) {
      m[i] = b1 * m[i] + c1 * g[i];
      v[i] = b2 * v[i] + c2 * g[i] * g[i];
      p[i] = p[i] * shrink - step * m[i] / (std::sqrt(v[i]) * root + eps);
    }
  });
}

}  // namespace trireme::cpu
