#include "kernels/cpu/gemm.h"

#include <cblas.h>
#include <dnnl.h>

#include "kernels/error.h"

namespace trireme::cpu {

namespace {

[[maybe_unused]] CBLAS_TRANSPOSE transpose(bool transposed) { return transposed ? CblasTrans : CblasNoTrans; }

}  // namespace

#if defined(__x86_64__)
void gemm(int m, int n, int k, MatrixOf<const float> a, MatrixOf<const float> b, float beta,
          MatrixOf<float> c) {
  const dnnl_status_t status = dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1.0f,
                                          a.data, a.leading, b.data, b.leading, beta, c.data, c.leading);
  TRIREME_CHECK(status == dnnl_success, "matmul: oneDNN failed with status {} on ({}, {}) @ ({}, {})",
                static_cast<int>(status), m, k, k, n);
}
#else
void gemm(int m, int n, int k, MatrixOf<const float> a, MatrixOf<const float> b, float beta,
          MatrixOf<float> c) {
  cblas_sgemm(CblasRowMajor, transpose(a.transposed), transpose(b.transposed), m, n, k, 1.0f, a.data,
              a.leading, b.data, b.leading, beta, c.data, c.leading);
}
#endif

void gemm(int m, int n, int k, MatrixOf<const double> a, MatrixOf<const double> b, double beta,
          MatrixOf<double> c) {
  cblas_dgemm(CblasRowMajor, transpose(a.transposed), transpose(b.transposed), m, n, k, 1.0, a.data,
              a.leading, b.data, b.leading, beta, c.data, c.leading);
}

}  // namespace trireme::cpu
