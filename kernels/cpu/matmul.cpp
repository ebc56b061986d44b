// Matrix products of views.
#include <limits>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernels.h"

namespace trireme::cpu {

namespace {

/// BLAS takes a matrix whose rows or whose columns lie dense in memory.
template <class T>
MatrixOf<const T> matrix(const View& m, std::int64_t batch) {
  const T* data = m.as<T>() + batch * m.strides[0];
  const std::int64_t rows = m.shape[1], columns = m.shape[2];
  const std::int64_t row_stride = m.strides[1], column_stride = m.strides[2];
  if (column_stride == 1 || columns == 1)
    return {data, static_cast<int>(std::max<std::int64_t>(rows > 1 ? row_stride : columns,
                                                          std::max<std::int64_t>(columns, 1)))};
  return {data,
          static_cast<int>(
              std::max<std::int64_t>(columns > 1 ? column_stride : rows, std::max<std::int64_t>(rows, 1))),
          true};
}

void multiply(const View& out, const View& a, const View& b) {
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
  const int lo = static_cast<int>(std::max<std::int64_t>(out.strides[1], n));
  visit_floating(out.dtype, "matmul", [&](auto type) {
    using T = decltype(type);
    for (std::int64_t i = 0; i < batch; ++i)
      gemm(m, n, k, matrix<T>(a, i), matrix<T>(b, i), T(0), {out.as<T>() + i * out.strides[0], lo});
  });
}

}  // namespace

void matmul(const View& out, const View& a, const View& b, const View* bias) {
  multiply(out, a, b);
  if (bias) binary(BinaryOp::add, out, out, along_rows(*bias, out));
}

}  // namespace trireme::cpu
