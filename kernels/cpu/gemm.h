// One matrix product by a library: oneDNN's in float32 on x86-64, where it knows the processor's vector units
// as its convolutions do (OpenBLAS takes a processor newer than itself for one without AVX); OpenBLAS
// otherwise. Include only from kernels/cpu.
#pragma once

#include <omp.h>

namespace trireme::cpu {

/// A row-major matrix, or the transpose of one; `leading` is the stride of its rows in memory.
template <class T>
struct MatrixOf {
  T* data;
  int leading;
  bool transposed = false;
};

/// c (m,n) = a (m,k) @ b (k,n) + beta * c, with k > 0. Bits may depend on threads.
void gemm(int m, int n, int k, MatrixOf<const float> a, MatrixOf<const float> b, float beta,
          MatrixOf<float> c);
void gemm(int m, int n, int k, MatrixOf<const double> a, MatrixOf<const double> b, double beta,
          MatrixOf<double> c);

/// Makes libraries that this thread calls use no other threads during its lifetime. Products inside of
/// parallel loops need it, so that their bits do not depend on the number of threads.
class OneThread {
 public:
  OneThread() { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = omp_get_max_threads();
};

}  // namespace trireme::cpu
