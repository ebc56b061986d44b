// Optimizer updates, one pass over memory each.
#include <cmath>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"

namespace trireme::cpu {

// Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning",
// 2013, with the learning rate outside the velocity as PyTorch has it.
void sgd(const View& parameter, const View& gradient, const View* momentum, const SgdOptions& o) {
  visit_floating(parameter.dtype, "sgd", [&](auto type) {
    using T = decltype(type);
    const T lr = static_cast<T>(o.lr), mu = static_cast<T>(o.momentum),
            decay = static_cast<T>(o.weight_decay);
    T* p = parameter.as<T>();
    const T* g = gradient.as<T>();
    T* v = momentum ? momentum->as<T>() : nullptr;
    for_pieces(parameter.numel(), kPiece, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        T d = g[i] + decay * p[i];
        if (v) {
          v[i] = mu * v[i] + d;
          d = o.nesterov ? d + mu * v[i] : v[i];
        }
        p[i] -= lr * d;
      }
    });
  });
}

// Loshchilov, Hutter, "Decoupled weight decay regularization", 2019.
void adamw(const View& parameter, const View& gradient, const View& first, const View& second,
           const AdamWOptions& o) {
  visit_floating(parameter.dtype, "adamw", [&](auto type) {
    using T = decltype(type);
    const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(o.step));
    const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(o.step));
    const T b1 = static_cast<T>(o.beta1), c1 = static_cast<T>(1 - o.beta1), b2 = static_cast<T>(o.beta2),
            c2 = static_cast<T>(1 - o.beta2);
    const T step = static_cast<T>(o.lr / correction1), root = static_cast<T>(1 / std::sqrt(correction2)),
            eps = static_cast<T>(o.eps), shrink = static_cast<T>(1 - o.lr * o.weight_decay);
    T *p = parameter.as<T>(), *m = first.as<T>(), *v = second.as<T>();
    const T* g = gradient.as<T>();
    for_pieces(parameter.numel(), kPiece, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        m[i] = b1 * m[i] + c1 * g[i];
        v[i] = b2 * v[i] + c2 * g[i] * g[i];
        p[i] = p[i] * shrink - step * m[i] / (std::sqrt(v[i]) * root + eps);
      }
    });
  });
}

}  // namespace trireme::cpu
