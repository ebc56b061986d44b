#include <cblas.h>

#include "kernels/cpu/kernels.h"

namespace trireme::cpu {

namespace {

struct Matrix {
  CBLAS_TRANSPOSE transpose;
  int leading;
};

/// BLAS takes a matrix whose rows or whose columns lie dense in memory.
Matrix layout(const View& m) {
  const std::int64_t rows = m.shape[1], columns = m.shape[2];
  const std::int64_t row_stride = m.strides[1], column_stride = m.strides[2];
  if (column_stride == 1 || columns == 1)
    return {CblasNoTrans, static_cast<int>(std::max<std::int64_t>(rows > 1 ? row_stride : columns, std::max<std::int64_t>(columns, 1)))};
  return {CblasTrans, static_cast<int>(std::max<std::int64_t>(columns > 1 ? column_stride : rows, std::max<std::int64_t>(rows, 1)))};
}

}  // namespace

void matmul(const View& out, const View& a, const View& b, double beta) {
  const std::int64_t batch = out.shape[0];
  const int m = static_cast<int>(out.shape[1]), n = static_cast<int>(out.shape[2]), k = static_cast<int>(a.shape[2]);
  if (m == 0 || n == 0) return;
  const Matrix la = layout(a), lb = layout(b);
  const int lo = static_cast<int>(std::max<std::int64_t>(out.strides[1], n));
  visit_floating(out.dtype, "matmul", [&](auto type) {
    using T = decltype(type);
    for (std::int64_t i = 0; i < batch; ++i) {
      const T* x = a.as<T>() + i * a.strides[0];
      const T* y = b.as<T>() + i * b.strides[0];
      T* o = out.as<T>() + i * out.strides[0];
      if constexpr (std::is_same_v<T, float>)
        cblas_sgemm(CblasRowMajor, la.transpose, lb.transpose, m, n, k, 1.0f, x, la.leading, y, lb.leading,
                    static_cast<float>(beta), o, lo);
      else
        cblas_dgemm(CblasRowMajor, la.transpose, lb.transpose, m, n, k, 1.0, x, la.leading, y, lb.leading, beta, o, lo);
    }
  });
}

}  // namespace trireme::cpu
