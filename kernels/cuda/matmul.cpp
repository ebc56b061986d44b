// Matrix products by cuBLASLt.
#include <cublasLt.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "kernels/cuda/engines.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/recorder.h"

namespace trireme::cuda {

namespace {

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what Hopper's kernels are said to want

/// The library's functions, typed by its own header.
struct Lt {
  Library library{kCublasLt, "cuBLAS (package libcublas)"};
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
  TRIREME_FUNCTION(cublasLtMatmulAlgoConfigGetAttribute)
  TRIREME_FUNCTION(cublasLtMatmulAlgoGetHeuristic)
#undef TRIREME_FUNCTION
  cublasLtHandle_t handle = nullptr;

  Lt() {
    take_device();  // the handle's
    check(cublasLtCreate(&handle), "cublasLtCreate");
  }
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
  void* data;
  std::int64_t rows, columns, leading, apart;
  bool turned;  ///< to be transposed before use

  /// From the first to behind the last element, of `count` matrices.
  std::size_t bytes(std::int64_t count, DType dtype) const {
    return static_cast<std::size_t>((count - 1) * apart + (columns - 1) * leading + rows) * size_of(dtype);
  }
  /// Returns the alignment of each matrix in bytes, if the first one is aligned as Aligned makes it.
  std::uint32_t alignment(std::int64_t count, DType dtype) const {
    std::size_t bytes = Aligned::kBytes;
    while (count > 1 && static_cast<std::size_t>(apart) * size_of(dtype) % bytes != 0) bytes /= 2;
    return static_cast<std::uint32_t>(bytes);
  }
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

/// Gives back what the library made.
struct Destroy {
  void operator()(cublasLtMatmulDescOpaque_t* made) const {
    report_failure(lt().cublasLtMatmulDescDestroy(made) != CUBLAS_STATUS_SUCCESS,
                   "cublasLtMatmulDescDestroy");
  }
  void operator()(cublasLtMatrixLayoutOpaque_t* made) const {
    report_failure(lt().cublasLtMatrixLayoutDestroy(made) != CUBLAS_STATUS_SUCCESS,
                   "cublasLtMatrixLayoutDestroy");
  }
  void operator()(cublasLtMatmulPreferenceOpaque_t* made) const {
    report_failure(lt().cublasLtMatmulPreferenceDestroy(made) != CUBLAS_STATUS_SUCCESS,
                   "cublasLtMatmulPreferenceDestroy");
  }
};
template <class T>
using Owned = std::unique_ptr<T, Destroy>;

/// The types of the factors and of the result. Factors of 16 bits may have a float32 result. A vector of the
/// result's type may be added to its rows before they are rounded.
struct Kind {
  DType in, out;
  bool has_bias;
  auto operator<=>(const Kind&) const = default;
};

/// Descriptors of one product, and the algorithm that the library's rule chose for its shape.
class Plan {
 public:
  Plan(const Matrix& a, const Matrix& b, const Matrix& c, std::int64_t batch, const Kind& kind)
      : kind_(kind) {
    const Types types = types_of(kind.in);
    const Lt& l = lt();
    cublasLtMatmulDesc_t operation = nullptr;
    l.check(l.cublasLtMatmulDescCreate(&operation, types.compute, types.scale), "cublasLtMatmulDescCreate");
    operation_.reset(operation);
    turn(CUBLASLT_MATMUL_DESC_TRANSA, a);
    turn(CUBLASLT_MATMUL_DESC_TRANSB, b);
    const Matrix* const matrices[] = {&a, &b, &c};
    for (int i = 0; i < 3; ++i)
      layouts_[i] = layout(*matrices[i], batch, types_of(i < 2 ? kind.in : kind.out).data);
    // The library has no kernel that adds the bias for some shapes.
    const std::size_t epilogues = kind.has_bias ? 2 : 1;
    const std::string product = describe(a, b, c, batch, kind);
    const auto chosen = choose_plan(
        epilogues,
        [&](std::size_t i) {
          adds_bias_ = i + 1 < epilogues;
          set(CUBLASLT_MATMUL_DESC_EPILOGUE, adds_bias_ ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
          // The plan holds for every bias pointer with this alignment.
          if (adds_bias_)
            set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, reinterpret_cast<const void*>(Aligned::kBytes));
          return choose(a, b, c, batch);
        },
        release_cached_memory, product);
    if (!chosen) fail(ExitCode::kInternal, "matmul: cuBLASLt has no kernel for {}", product);
    add_engine(product, describe_algorithm());
  }

  /// Returns true if the product adds the bias; otherwise the caller has to.
  bool adds_bias() const { return adds_bias_; }

  /// c = a b + bias, where it is added.
  void enqueue(const void* a, const void* b, void* c, const void* bias) const {
    const Scratch workspace(found_.workspaceSize);
    enqueue_call(Product{this, a, b, adds_bias_ ? bias : nullptr, c, workspace.as<void>()}, this);
  }

 private:
  struct Product {
    const Plan* plan;  ///< kept for the life of the process
    const void *a, *b, *bias;
    void *c, *workspace;
    void operator()(Stream stream) const { plan->run(*this, stream); }
  };

  void run(const Product& p, Stream stream) const {
    const Lt& l = lt();
    const double one64 = 1, zero64 = 0;
    const float one32 = 1, zero32 = 0;
    const void *alpha = &one32, *beta = &zero32;
    if (kind_.in == DType::kFloat64) alpha = &one64, beta = &zero64;
    static std::mutex mutex;  // where the bias lies is said to the descriptor, which all threads share
    const std::lock_guard lock(mutex);
    if (p.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    l.check(
        l.cublasLtMatmul(l.handle, operation_.get(), alpha, p.a, layouts_[0].get(), p.b, layouts_[1].get(),
                         beta, p.c, layouts_[2].get(), p.c, layouts_[2].get(), &found_.algo, p.workspace,
                         found_.workspaceSize, reinterpret_cast<cudaStream_t>(stream)),
        "cublasLtMatmul");
  }

  void turn(cublasLtMatmulDescAttributes_t attribute, const Matrix& m) {
    set(attribute, m.turned ? CUBLAS_OP_T : CUBLAS_OP_N);
  }

  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    lt().check(lt().cublasLtMatmulDescSetAttribute(operation_.get(), attribute, &value, sizeof value),
               "cublasLtMatmulDescSetAttribute");
  }

  static Owned<cublasLtMatrixLayoutOpaque_t> layout(const Matrix& m, std::int64_t batch,
                                                    cudaDataType_t type) {
    const Lt& l = lt();
    cublasLtMatrixLayout_t raw = nullptr;
    l.check(l.cublasLtMatrixLayoutCreate(&raw, type, static_cast<std::uint64_t>(m.rows),
                                         static_cast<std::uint64_t>(m.columns), m.leading),
            "cublasLtMatrixLayoutCreate");
    Owned<cublasLtMatrixLayoutOpaque_t> made(raw);
    const auto count = static_cast<std::int32_t>(batch);
    l.check(l.cublasLtMatrixLayoutSetAttribute(raw, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
            "cublasLtMatrixLayoutSetAttribute");
    l.check(l.cublasLtMatrixLayoutSetAttribute(raw, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m.apart,
                                               sizeof m.apart),
            "cublasLtMatrixLayoutSetAttribute");
    return made;
  }

  /// Takes the first algorithm of the library's heuristic, which looks at shapes alone. Split sums are joined
  /// in a workspace, in order, never by atomic additions.
  PlanAttempt choose(const Matrix& a, const Matrix& b, const Matrix& c, std::int64_t batch) {
    const Lt& l = lt();
    cublasLtMatmulPreference_t raw = nullptr;
    l.check(l.cublasLtMatmulPreferenceCreate(&raw), "cublasLtMatmulPreferenceCreate");
    const Owned<cublasLtMatmulPreferenceOpaque_t> preference(raw);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      l.check(l.cublasLtMatmulPreferenceSetAttribute(raw, attribute, &value, sizeof value),
              "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a.alignment(batch, kind_.in));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b.alignment(batch, kind_.in));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c.alignment(batch, kind_.out));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c.alignment(batch, kind_.out));
    int count = 0;
    cublasStatus_t status =
        l.cublasLtMatmulAlgoGetHeuristic(l.handle, operation_.get(), layouts_[0].get(), layouts_[1].get(),
                                         layouts_[2].get(), layouts_[2].get(), raw, 1, &found_, &count);
    if (status == CUBLAS_STATUS_SUCCESS) status = count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : found_.state;
    if (status == CUBLAS_STATUS_SUCCESS) return {};
    return {status == CUBLAS_STATUS_NOT_SUPPORTED ? PlanAttempt::kNotSupported : PlanAttempt::kFailed,
            l.cublasLtGetStatusString(status)};
  }

  /// Returns a line that names the product's types, shapes and strides, and thereby no other product.
  static std::string describe(const Matrix& a, const Matrix& b, const Matrix& c, std::int64_t batch,
                              const Kind& kind) {
    const auto shape = [batch](const Matrix& m) {
      return fmt::format("{}x{}{} ld {}{}", m.rows, m.columns, m.turned ? " transposed" : "", m.leading,
                         batch > 1 ? fmt::format(" every {}", m.apart) : "");
    };
    return fmt::format("matmul {} to {}{}, batch {}, column-major ({}) ({}) to ({})", name_of(kind.in),
                       name_of(kind.out), kind.has_bias ? " with bias" : "", batch, shape(a), shape(b),
                       shape(c));
  }

  template <class T>
  T setting(cublasLtMatmulAlgoConfigAttributes_t attribute) const {
    T value{};
    std::size_t written = 0;
    lt().check(
        lt().cublasLtMatmulAlgoConfigGetAttribute(&found_.algo, attribute, &value, sizeof value, &written),
        "cublasLtMatmulAlgoConfigGetAttribute");
    return value;
  }

  /// Returns the algorithm's settings: "cuBLASLt id 66 tile 20 ..., workspace 33554432".
  std::string describe_algorithm() const {
    constexpr std::pair<const char*, cublasLtMatmulAlgoConfigAttributes_t> kSettings[] = {
        {"id", CUBLASLT_ALGO_CONFIG_ID},
        {"tile", CUBLASLT_ALGO_CONFIG_TILE_ID},
        {"split", CUBLASLT_ALGO_CONFIG_SPLITK_NUM},
        {"reduction", CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME},
        {"swizzle", CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING},
        {"custom", CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION},
        {"stages", CUBLASLT_ALGO_CONFIG_STAGES_ID}};
    std::string text = "cuBLASLt";
    for (const auto& [name, attribute] : kSettings)
      text += fmt::format(" {} {}", name, setting<std::int32_t>(attribute));
    text += fmt::format(" inner {} cluster {}", setting<std::uint16_t>(CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID),
                        setting<std::uint16_t>(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID));
    return fmt::format("{}{}, workspace {}", text, adds_bias_ ? " adds bias" : "", found_.workspaceSize);
  }

  const Kind kind_;
  bool adds_bias_ = false;
  Owned<cublasLtMatmulDescOpaque_t> operation_;
  Owned<cublasLtMatrixLayoutOpaque_t> layouts_[3];
  cublasLtMatmulHeuristicResult_t found_{};
};

const Plan& plan_for(const Matrix& a, const Matrix& b, const Matrix& c, std::int64_t batch,
                     const Kind& kind) {
  const auto of = [batch](const Matrix& m) {
    return std::tuple(m.rows, m.columns, m.leading, batch > 1 ? m.apart : 0, m.turned);
  };
  using Key = std::tuple<decltype(of(a)), decltype(of(a)), decltype(of(a)), std::int64_t, Kind>;
  static std::mutex mutex;
  static auto* const plans = new std::map<Key, Plan>;  // kept for the life of the process: shapes repeat
  std::lock_guard lock(mutex);
  const Key key{of(a), of(b), of(c), batch, kind};
  const auto found = plans->find(key);
  if (found != plans->end()) return found->second;
  return plans->try_emplace(key, a, b, c, batch, kind).first->second;
}

/// c = a b, of `batch` matrices each; true if the bias was added.
bool multiply(const Matrix& a, const Matrix& b, const Matrix& c, std::int64_t batch, const Kind& kind,
              const void* bias) {
  const Plan& plan = plan_for(a, b, c, batch, kind);
  const Aligned left(a.data, a.bytes(batch, kind.in)), right(b.data, b.bytes(batch, kind.in)),
      out(c.data, c.bytes(batch, kind.out));
  plan.enqueue(left.get(), right.get(), out.get(), bias);
  out.write_back();
  return plan.adds_bias();
}

}  // namespace

void matmul(const View& out, const View& a, const View& b, const View* bias) {
  if (out.numel() == 0) return;
  bool is_added = false;
  if (a.shape[2] == 0) {
    fill(out, 0);
  } else {
    Matrix left = matrix(b), right = matrix(a), result = matrix(out);
    TRIREME_CHECK(!result.turned, "matmul: the result's rows must be contiguous, their strides are {}, {}",
                  out.strides[1], out.strides[2]);
    // The library has no such kernels for float64.
    const bool adds = bias && out.shape[0] == 1 && out.dtype != DType::kFloat64;
    std::optional<Aligned> shift;
    if (adds) shift.emplace(bias->data, static_cast<std::size_t>(bias->shape[0]) * size_of(bias->dtype));
    const Kind kind{a.dtype, out.dtype, adds};
    constexpr std::int64_t kBatch = 32768;  // the grid's third dimension has 16 bits
    for (std::int64_t begin = 0, all = out.shape[0]; begin < all; begin += kBatch) {
      is_added =
          multiply(left, right, result, std::min(kBatch, all - begin), kind, shift ? shift->get() : nullptr);
      const auto advance = [&](Matrix& m, DType dtype) {
        m.data = static_cast<char*>(m.data) + kBatch * m.apart * static_cast<std::int64_t>(size_of(dtype));
      };
      advance(left, kind.in);
      advance(right, kind.in);
      advance(result, kind.out);
    }
  }
  if (bias && !is_added) binary(BinaryOp::add, out, out, along_rows(*bias, out));
}

}  // namespace trireme::cuda
