// Matrix products by a library: oneDNN's in float32 on x86-64, where it knows the processor's vector units as
// its convolutions do (OpenBLAS takes a processor newer than itself for one without AVX); OpenBLAS otherwise.
#include <cblas.h>
#include <dnnl.h>
#include <limits>

#include "kernels/cpu/kernels.h"

namespace trireme::cpu {

namespace {

struct Matrix {
  bool transposed;
  int leading;
};

/// BLAS takes a matrix whose rows or whose columns lie dense in memory.
Matrix layout(const View& m) {
  const std::int64_t rows = m.shape[1], columns = m.shape[2];
  const std::int64_t row_stride = m.strides[1], column_stride = m.strides[2];
  if (column_stride == 1 || columns == 1)
    return {false, static_cast<int>(std::max<std::int64_t>(rows > 1 ? row_stride : columns,
                                                           std::max<std::int64_t>(columns, 1)))};
  return {true, static_cast<int>(std::max<std::int64_t>(columns > 1 ? column_stride : rows,
                                                        std::max<std::int64_t>(rows, 1)))};
}

CBLAS_TRANSPOSE transpose(const Matrix& matrix) { return matrix.transposed ? CblasTrans : CblasNoTrans; }

#if defined(__x86_64__)
void gemm(const Matrix& la, const Matrix& lb, int m, int n, int k, const float* x, const float* y, float* o,
          int lo) {
  const auto letter = [](const Matrix& matrix) { return matrix.transposed ? 'T' : 'N'; };
  const dnnl_status_t status =
      dnnl_sgemm(letter(la), letter(lb), m, n, k, 1.0f, x, la.leading, y, lb.leading, 0, o, lo);
  TRIREME_CHECK(status == dnnl_success, "matmul: oneDNN failed with status {} on ({}, {}) @ ({}, {})",
                static_cast<int>(status), m, k, k, n);
}
#else
void gemm(const Matrix& la, const Matrix& lb, int m, int n, int k, const float* x, const float* y, float* o,
          int lo) {
  cblas_sgemm(CblasRowMajor, transpose(la), transpose(lb), m, n, k, 1.0f, x, la.leading, y, lb.leading, 0, o,
              lo);
}
#endif

void gemm(const Matrix& la, const Matrix& lb, int m, int n, int k, const double* x, const double* y,
          double* o, int lo) {
  cblas_dgemm(CblasRowMajor, transpose(la), transpose(lb), m, n, k, 1.0, x, la.leading, y, lb.leading, 0, o,
              lo);
}

}  // namespace

void matmul(const View& out, const View& a, const View& b) {
  const std::int64_t batch = out.shape[0];
  for (const std::int64_t size : {out.shape[1], out.shape[2], a.shape[2]})
    TRIREME_CHECK(size <= std::numeric_limits<int>::max(), "matmul: size {} is more than BLAS can count",
                  size);
  const int m = static_cast<int>(out.shape[1]), n = static_cast<int>(out.shape[2]),
            k = static_cast<int>(a.shape[2]);
  if (m == 0 || n == 0) return;
  if (k == 0) {  // libraries differ on what an empty sum leaves behind
    fill(out, 0);
    return;
  }
  const Matrix la = layout(a), lb = layout(b);
  const int lo = static_cast<int>(std::max<std::int64_t>(out.strides[1], n));
  visit_floating(out.dtype, "matmul", [&](auto type) {
    using T = decltype(type);
    for (std::int64_t i = 0; i < batch; ++i) {
      const T* x = a.as<T>() + i * a.strides[0];
      const T* y = b.as<T>() + i * b.strides[0];
      T* o = out.as<T>() + i * out.strides[0];
      gemm(la, lb, m, n, k, x, y, o, lo);
    }
  });
}

}  // namespace trireme::cpu
