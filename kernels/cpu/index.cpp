// Gathering and scattering along the middle of three dimensions. Sums go in the order of the index, so their
// bits depend on nothing else; threads share out what lies beside it.
#include <numeric>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/progression.h"

namespace trireme::cpu {

void gather(const View& out, const View& in, const View& index) {
  const std::int64_t rows = out.shape[1], width = out.shape[2];
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    const auto at = [](const View& v, std::int64_t o, std::int64_t i) {
      return o * v.strides[0] + i * v.strides[1];
    };
    for_pieces(out.shape[0] * rows, std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t k = begin; k < end; ++k) {
                   const std::int64_t o = k / rows, i = k % rows;
                   T* to = out.as<T>() + at(out, o, i);
                   const std::int64_t* pick = index.as<std::int64_t>() + at(index, o, i);
                   const T* from = in.as<T>() + o * in.strides[0];
                   for (std::int64_t j = 0; j < width; ++j)
                     to[j * out.strides[2]] =
                         from[pick[j * index.strides[2]] * in.strides[1] + j * in.strides[2]];
                 }
               });
  });
}

namespace {

template <class T, class Join>
void scatter_as(const View& out, const View& index, const View& in, const Join& join) {
  const std::int64_t rows = in.shape[1], width = in.shape[2];
  constexpr std::int64_t kBlock = 64;
  const std::int64_t blocks = (width + kBlock - 1) / kBlock;
  for_pieces(in.shape[0] * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t o = k / blocks, first = k % blocks * kBlock, last = std::min(width, first + kBlock);
      T* to = out.as<T>() + o * out.strides[0];
      for (std::int64_t i = 0; i < rows; ++i) {
        const T* from = in.as<T>() + o * in.strides[0] + i * in.strides[1];
        const std::int64_t* pick = index.as<std::int64_t>() + o * index.strides[0] + i * index.strides[1];
        for (std::int64_t j = first; j < last; ++j) {
          T& element = to[pick[j * index.strides[2]] * out.strides[1] + j * out.strides[2]];
          element = join(element, from[j * in.strides[2]]);
        }
      }
    }
  });
}

}  // namespace

void scatter(ScatterOp op, const View& out, const View& index, const View& in) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    if (op == ScatterOp::kSet) return scatter_as<T>(out, index, in, [](T, T b) { return b; });
    if constexpr (std::is_same_v<T, bool>)
      fail(ExitCode::kInternal, "scatter_add: not defined for bool; convert it with to() first");
    else
      scatter_as<T>(out, index, in, [](T a, T b) {
        return static_cast<T>(static_cast<Compute<T>>(a) + static_cast<Compute<T>>(b));
      });
  });
}

void argsort(const View& out, const View& in, bool descending) {
  const std::int64_t rows = in.shape[0], width = in.shape[1];
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(rows, std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(1, width)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t r = begin; r < end; ++r) {
                   const T* x = in.as<T>() + r * width;
                   std::int64_t* order = out.as<std::int64_t>() + r * width;
                   std::iota(order, order + width, std::int64_t{0});
                   // NaN counts as larger than every number.
                   const auto less = [x](std::int64_t a, std::int64_t b) {
                     const auto p = static_cast<Compute<T>>(x[a]), q = static_cast<Compute<T>>(x[b]);
                     return p < q || (p == p && q != q);
                   };
                   if (descending)
                     std::stable_sort(order, order + width, [&](auto a, auto b) { return less(b, a); });
                   else
                     std::stable_sort(order, order + width, less);
                 }
               });
  });
}

void nonzero(const View& out, const View& mask) {
  std::int64_t* to = out.as<std::int64_t>();
  for (std::int64_t i = 0; i < mask.shape[0]; ++i)
    if (mask.as<bool>()[i]) *to++ = i;
}

void arange(const View& out, Scalar start, Scalar step) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    with_arange<T>(start, step, [&](const auto& number) {
      for (std::int64_t i = 0; i < out.shape[0]; ++i) out.as<T>()[i] = number(i);
    });
  });
}

void linspace(const View& out, Scalar start, Scalar end) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    const auto number = linspace_of<T>(start, end, out.shape[0]);
    for (std::int64_t i = 0; i < out.shape[0]; ++i) out.as<T>()[i] = number(i);
  });
}

}  // namespace trireme::cpu
