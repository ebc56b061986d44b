// Matrix products by cuBLASLt.
#include <cublasLt.h>

#include <map>
#include <mutex>
#include <tuple>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/memory.h"

namespace trireme::cuda {

namespace {

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what Hopper's kernels are said to want

/// The library's functions, typed by its own header.
struct Lt {
  Library library{{"libcublasLt.so.13", "libcublasLt.so.12"}, "cuBLAS (package libcublas)"};
#define TRIREME_FUNCTION(name) decltype(::name)* name = library.function<decltype(::name)>(#name);
  TRIREME_FUNCTION(cublasLtCreate)
  TRIREME_FUNCTION(cublasLtGetStatusString)
  TRIREME_FUNCTION(cublasLtMatmul)
  TRIREME_FUNCTION(cublasLtMatmulDescCreate)
  TRIREME_FUNCTION(cublasLtMatmulDescDestroy)
  TRIREME_FUNCTION(cublasLtMatmulDescSetAttribute)
  TRIREME_FUNCTION(cublasLtMatrixLayoutCreate)
  TRIREME_FUNCTION(cublasLtMatrixLayoutDestroy)
  TRIREME_FUNCTION(cublasLtMatrixLayoutSetAttribute)
  TRIREME_FUNCTION(cublasLtMatmulPreferenceCreate)
  TRIREME_FUNCTION(cublasLtMatmulPreferenceDestroy)
  TRIREME_FUNCTION(cublasLtMatmulPreferenceSetAttribute)
  TRIREME_FUNCTION(cublasLtMatmulAlgoGetHeuristic)
#undef TRIREME_FUNCTION
  cublasLtHandle_t handle = nullptr;

  Lt() { check(cublasLtCreate(&handle), "cublasLtCreate"); }
  void check(cublasStatus_t status, const char* what) const {
    if (status != CUBLAS_STATUS_SUCCESS)
      fail(ExitCode::kInternal, "cuda: {} failed: {}", what, cublasLtGetStatusString(status));
  }
};

const Lt& lt() {
  static const Lt* const one = new Lt;
  return *one;
}

/// A batch of matrices as cuBLAS sees them: column-major, `rows` x `columns`.
struct Matrix {
  const void* data;
  std::int64_t rows, columns, leading, apart;
  bool turned;  ///< to be transposed before use
};

/// A row-major matrix is the transpose of a column-major one, so out = a b is computed as out' = b' a'.
Matrix matrix(const View& m) {
  const std::int64_t rows = m.shape[1], columns = m.shape[2];
  const bool row_major = m.strides[2] == 1 || columns == 1;
  if (row_major)
    return {m.data, columns, rows, rows > 1 ? std::max(m.strides[1], columns) : columns, m.strides[0], false};
  return {m.data, rows, columns, columns > 1 ? std::max(m.strides[2], rows) : rows, m.strides[0], true};
}

struct Types {
  cudaDataType_t data, scale;
  cublasComputeType_t compute;
};

Types types_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F};  // no TF32: its products have 10 bits
    case DType::kFloat64:
      return {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F};
    case DType::kBFloat16:
      return {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case DType::kFloat16:
      return {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    default:
      fail(ExitCode::kInternal, "matmul: needs floating point, got {}", name_of(dtype));
  }
}

/// Descriptors of one product, and the algorithm that the library's rule chose for its shape.
class Plan {
 public:
  Plan(const Matrix& a, const Matrix& b, const Matrix& c, std::int64_t batch, DType dtype) {
    const Types types = types_of(dtype);
    const Lt& l = lt();
    l.check(l.cublasLtMatmulDescCreate(&operation_, types.compute, types.scale), "cublasLtMatmulDescCreate");
    const cublasOperation_t op_a = a.turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_b = b.turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    describe(CUBLASLT_MATMUL_DESC_TRANSA, op_a);
    describe(CUBLASLT_MATMUL_DESC_TRANSB, op_b);
    const Matrix* const matrices[] = {&a, &b, &c};
    for (int i = 0; i < 3; ++i) layouts_[i] = layout(*matrices[i], batch, types.data);
    choose(a, b, c, dtype);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void run(const Matrix& a, const Matrix& b, const Matrix& c, DType dtype) const {
    const Lt& l = lt();
    const Scratch workspace(found_.workspaceSize);
    const double one64 = 1, zero64 = 0;
    const float one32 = 1, zero32 = 0;
    const bool wide = dtype == DType::kFloat64;
    const void *alpha = &one32, *beta = &zero32;
    if (wide) alpha = &one64, beta = &zero64;
    void* const out = const_cast<void*>(c.data);
    l.check(l.cublasLtMatmul(l.handle, operation_, alpha, a.data, layouts_[0], b.data, layouts_[1], beta, out,
                             layouts_[2], out, layouts_[2], &found_.algo, workspace.as<void>(),
                             found_.workspaceSize, reinterpret_cast<cudaStream_t>(stream())),
            "cublasLtMatmul");
  }

 private:
  template <class T>
  void describe(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    lt().check(lt().cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof value),
               "cublasLtMatmulDescSetAttribute");
  }

  static cublasLtMatrixLayout_t layout(const Matrix& m, std::int64_t batch, cudaDataType_t type) {
    const Lt& l = lt();
    cublasLtMatrixLayout_t made = nullptr;
    l.check(l.cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(m.rows),
                                         static_cast<std::uint64_t>(m.columns), m.leading),
            "cublasLtMatrixLayoutCreate");
    const auto count = static_cast<std::int32_t>(batch);
    l.check(
        l.cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
        "cublasLtMatrixLayoutSetAttribute");
    l.check(l.cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m.apart,
                                               sizeof m.apart),
            "cublasLtMatrixLayoutSetAttribute");
    return made;
  }

  /// By the library's heuristic, which looks at shapes alone. Split sums are joined in a workspace, in order,
  /// never by atomic additions.
  void choose(const Matrix& a, const Matrix& b, const Matrix& c, DType dtype) {
    const Lt& l = lt();
    cublasLtMatmulPreference_t preference = nullptr;
    l.check(l.cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const std::uint32_t ordered = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    l.check(l.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &kWorkspace, sizeof kWorkspace),
            "cublasLtMatmulPreferenceSetAttribute");
    l.check(l.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                   &ordered, sizeof ordered),
            "cublasLtMatmulPreferenceSetAttribute");
    // The plan serves every call of its shape, so it must not count on more than elements are aligned to.
    const std::uint32_t aligned = static_cast<std::uint32_t>(size_of(dtype));
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      const std::uint32_t bytes = is_aligned(a) && is_aligned(b) && is_aligned(c) ? 16 : aligned;
      l.check(l.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &bytes, sizeof bytes),
              "cublasLtMatmulPreferenceSetAttribute");
    }
    int count = 0;
    const cublasStatus_t status =
        l.cublasLtMatmulAlgoGetHeuristic(l.handle, operation_, layouts_[0], layouts_[1], layouts_[2],
                                         layouts_[2], preference, 1, &found_, &count);
    l.cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0)
      fail(ExitCode::kInternal, "matmul: cuBLASLt has no kernel for {} ({}, {}) @ ({}, {}): {}",
           name_of(dtype), c.columns, a.turned ? a.columns : a.rows, b.turned ? b.rows : b.columns, c.rows,
           l.cublasLtGetStatusString(status));
  }

 public:
  static bool is_aligned(const Matrix& m) { return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0; }

 private:
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t layouts_[3] = {};
  cublasLtMatmulHeuristicResult_t found_{};
};

const Plan& plan_for(const Matrix& a, const Matrix& b, const Matrix& c, std::int64_t batch, DType dtype) {
  const auto of = [](const Matrix& m) {
    return std::tuple(m.rows, m.columns, m.leading, m.apart, m.turned, Plan::is_aligned(m));
  };
  using Key = std::tuple<decltype(of(a)), decltype(of(a)), decltype(of(a)), std::int64_t, DType>;
  static std::mutex mutex;
  static auto* const plans = new std::map<Key, Plan>;  // kept for the life of the process: shapes repeat
  std::lock_guard lock(mutex);
  const Key key{of(a), of(b), of(c), batch, dtype};
  const auto found = plans->find(key);
  if (found != plans->end()) return found->second;
  return plans->try_emplace(key, a, b, c, batch, dtype).first->second;
}

}  // namespace

void matmul(const View& out, const View& a, const View& b) {
  if (out.numel() == 0) return;
  if (a.shape[2] == 0) return fill(out, 0);
  const Matrix left = matrix(b), right = matrix(a), result = matrix(out);
  plan_for(left, right, result, out.shape[0], out.dtype).run(left, right, result, out.dtype);
}

}  // namespace trireme::cuda
