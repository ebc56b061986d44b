// An emulated cuBLASLt: the functions that kernels/cuda/matmul.cpp loads, with the declarations of the real
// header. Like the library, it refuses pointers with less alignment than promised, rows that overlap, and
// more matrices than fit in a grid. Each call overwrites its workspace.
#include <cublasLt.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/cpu/kernels.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/cuda_emulator/wide.h"

namespace trireme::cuda::emulator {

namespace {

constexpr std::size_t kWorkspace = 4096;

struct Operation {
  cublasComputeType_t compute;
  cublasOperation_t turn[2];
  cublasLtEpilogue_t epilogue;
  const void* bias;
};

struct Layout {
  cudaDataType type;
  std::uint64_t rows, columns;
  std::int64_t leading, apart;
  std::int32_t batch;
};

struct Preference {
  std::uint64_t workspace;
  std::uint32_t schemes, alignment[4];
};

/// Returns the emulator's state of a descriptor, which is stored in the opaque descriptor.
template <class State, class Opaque>
State& state(Opaque* opaque) {
  static_assert(sizeof(State) <= sizeof(Opaque));
  return *reinterpret_cast<State*>(opaque);
}
template <class State, class Opaque>
cublasStatus_t make(Opaque** made, const State& initial) {
  *made = new Opaque{};
  state<State>(*made) = initial;
  return CUBLAS_STATUS_SUCCESS;
}
template <class Opaque>
cublasStatus_t destroy(Opaque* made) {
  delete made;
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t assign(T& to, const void* value, std::size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t create(cublasLtHandle_t* handle) {
  making_plan();
  *handle = reinterpret_cast<cublasLtHandle_t>(std::uintptr_t{1});
  return CUBLAS_STATUS_SUCCESS;
}

const char* status_string(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return "CUBLAS_STATUS_NOT_SUPPORTED";
  return status == CUBLAS_STATUS_ALLOC_FAILED ? "CUBLAS_STATUS_ALLOC_FAILED" : "CUBLAS_STATUS_INVALID_VALUE";
}

cublasStatus_t operation_create(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType_t) {
  return make(made, Operation{compute, {CUBLAS_OP_N, CUBLAS_OP_N}, CUBLASLT_EPILOGUE_DEFAULT, nullptr});
}

cublasStatus_t operation_set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                             const void* value, std::size_t bytes) {
  auto& [compute, turn, epilogue, bias] = state<Operation>(operation);
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSA) return assign(turn[0], value, bytes);
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSB) return assign(turn[1], value, bytes);
  if (attribute == CUBLASLT_MATMUL_DESC_EPILOGUE) return assign(epilogue, value, bytes);
  if (attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER) return assign(bias, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t layout_create(cublasLtMatrixLayout_t* made, cudaDataType type, std::uint64_t rows,
                             std::uint64_t columns, std::int64_t leading) {
  if (leading < static_cast<std::int64_t>(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  return make(made, Layout{type, rows, columns, leading, 0, 1});
}

cublasStatus_t layout_set(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
                          const void* value, std::size_t bytes) {
  auto& l = state<Layout>(layout);
  if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return assign(l.batch, value, bytes);
  if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return assign(l.apart, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t preference_create(cublasLtMatmulPreference_t* made) {
  return make(made, Preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}});
}

cublasStatus_t preference_set(cublasLtMatmulPreference_t preference,
                              cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                              std::size_t bytes) {
  auto& p = state<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return assign(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return assign(p.schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return assign(p.alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

bool is_promised(const void* data, std::uint64_t alignment) {
  return reinterpret_cast<std::uintptr_t>(data) % alignment == 0;
}

std::atomic<int> heuristics_to_fail = 0;

/// Emulates cublasLtMatmulAlgoGetHeuristic. Returns the only algorithm, which stores the promised alignments.
cublasStatus_t heuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t,
                         cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                         cublasLtMatmulPreference_t preference, int wanted,
                         cublasLtMatmulHeuristicResult_t found[], int* count) {
  making_plan();
  if (heuristics_to_fail > 0) {
    --heuristics_to_fail;
    return CUBLAS_STATUS_ALLOC_FAILED;
  }
  const auto& p = state<Preference>(preference);
  if (wanted < 1 || p.workspace < kWorkspace) return CUBLAS_STATUS_INVALID_VALUE;
  *count = 0;
  if (state<Layout>(d).batch > 65535) return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto& o = state<Operation>(operation);
  if (o.epilogue == CUBLASLT_EPILOGUE_BIAS) {
    if (!o.bias || !is_promised(o.bias, 16)) return CUBLAS_STATUS_INVALID_VALUE;
    // Emulate a size for which the library has no kernel.
    if (state<Layout>(d).rows == 3) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  found[0] = {};
  found[0].workspaceSize = kWorkspace;
  for (int i = 0; i < 4; ++i) found[0].algo.data[i] = p.alignment[i];
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t algorithm_get(const cublasLtMatmulAlgo_t*, cublasLtMatmulAlgoConfigAttributes_t attribute,
                             void* value, std::size_t bytes, std::size_t* written) {
  const std::int32_t setting = attribute == CUBLASLT_ALGO_CONFIG_ID ? 1 : 0;
  const bool is_short =
      attribute == CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID || attribute == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID;
  *written = is_short ? sizeof(std::uint16_t) : sizeof setting;
  if (bytes != *written) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &setting, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

DType dtype_of_type(cudaDataType type) {
  switch (type) {
    case CUDA_R_64F:
      return DType::kFloat64;
    case CUDA_R_16BF:
      return DType::kBFloat16;
    case CUDA_R_16F:
      return DType::kFloat16;
    default:
      return DType::kFloat32;
  }
}

/// Views column-major matrices as a batch of row-major matrices, which are their transposes. With `turned`,
/// returns the transposes of those.
View transposed(const Layout& l, bool turned, const void* data) {
  View v;
  v.data = const_cast<void*>(data);
  v.dtype = dtype_of_type(l.type);
  v.dims = 3;
  const auto rows = static_cast<std::int64_t>(l.rows), columns = static_cast<std::int64_t>(l.columns);
  const std::int64_t shape[] = {l.batch, columns, rows}, strides[] = {l.apart, l.leading, 1};
  std::copy_n(shape, 3, v.shape);
  std::copy_n(strides, 3, v.strides);
  if (turned) {
    std::swap(v.shape[1], v.shape[2]);
    std::swap(v.strides[1], v.strides[2]);
  }
  return v;
}

cublasStatus_t multiply(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
                        cublasLtMatrixLayout_t layout_a, const void* b, cublasLtMatrixLayout_t layout_b,
                        const void* beta, const void* c, cublasLtMatrixLayout_t layout_c, void* d,
                        cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t* algo, void* workspace,
                        std::size_t workspace_bytes, cudaStream_t stream) {
  const auto& o = state<Operation>(operation);
  const auto &la = state<Layout>(layout_a), &lb = state<Layout>(layout_b), &lc = state<Layout>(layout_c);
  const auto is = [&](const void* scalar, double value) {
    double wide;
    float narrow;
    std::memcpy(&narrow, scalar, sizeof narrow);
    if (lc.type != CUDA_R_64F) return narrow == static_cast<float>(value);
    std::memcpy(&wide, scalar, sizeof wide);
    return wide == value;
  };
  const bool aligned = is_promised(a, algo->data[0]) && is_promised(b, algo->data[1]) &&
                       is_promised(c, algo->data[2]) && is_promised(d, algo->data[3]);
  if (!aligned || c != d || workspace_bytes < kWorkspace || !is(alpha, 1) || !is(beta, 0))
    return CUBLAS_STATUS_INVALID_VALUE;
  // Compute d' = b' a', because the transposes of column-major matrices are row-major.
  const View out = transposed(lc, false, d), left = transposed(lb, o.turn[1] == CUBLAS_OP_T, b),
             right = transposed(la, o.turn[0] == CUBLAS_OP_T, a);
  if (left.shape[2] != right.shape[1] || out.shape[1] != left.shape[1] || out.shape[2] != right.shape[2])
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool has_bias = o.epilogue == CUBLASLT_EPILOGUE_BIAS;
  const bool widens = is_low_precision(left.dtype) && out.dtype == DType::kFloat32;
  if (left.dtype != right.dtype || (left.dtype != out.dtype && !widens)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if ((has_bias && !o.bias) || (has_bias && (!is_promised(o.bias, 16) || lc.type == CUDA_R_64F)))
    return CUBLAS_STATUS_INVALID_VALUE;
  starting(operation, reinterpret_cast<Stream>(stream));
  const View shift{const_cast<void*>(o.bias), out.dtype, 1, {out.shape[2]}, {1}};
  enqueue(reinterpret_cast<Stream>(stream), [=] {
    std::memset(workspace, 0xff, kWorkspace);
    const Wide result(out), wide_left(left), wide_right(right), bias(has_bias ? shift : View{});
    cpu::matmul(result.view(), wide_left.view(), wide_right.view(), has_bias ? &bias.view() : nullptr);
    result.store();
  });
  return CUBLAS_STATUS_SUCCESS;
}

[[maybe_unused]] const bool kProvided =
    provide({{"cublasLtCreate", pointer(create)},
             {"cublasLtGetStatusString", pointer(status_string)},
             {"cublasLtMatmul", pointer(multiply)},
             {"cublasLtMatmulDescCreate", pointer(operation_create)},
             {"cublasLtMatmulDescDestroy", pointer(destroy<cublasLtMatmulDescOpaque_t>)},
             {"cublasLtMatmulDescSetAttribute", pointer(operation_set)},
             {"cublasLtMatrixLayoutCreate", pointer(layout_create)},
             {"cublasLtMatrixLayoutDestroy", pointer(destroy<cublasLtMatrixLayoutOpaque_t>)},
             {"cublasLtMatrixLayoutSetAttribute", pointer(layout_set)},
             {"cublasLtMatmulPreferenceCreate", pointer(preference_create)},
             {"cublasLtMatmulPreferenceDestroy", pointer(destroy<cublasLtMatmulPreferenceOpaque_t>)},
             {"cublasLtMatmulPreferenceSetAttribute", pointer(preference_set)},
             {"cublasLtMatmulAlgoConfigGetAttribute", pointer(algorithm_get)},
             {"cublasLtMatmulAlgoGetHeuristic", pointer(heuristic)}});

}  // namespace

void fail_heuristics(int count) { heuristics_to_fail = count; }

}  // namespace trireme::cuda::emulator
