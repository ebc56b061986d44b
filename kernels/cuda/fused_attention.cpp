// Attention by cuDNN's front end, which knows what each version of the library calls it.
#include "kernels/cuda/fused_attention.h"

// Its functions are looked up in the library that is loaded already.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/recorder.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // the front end declares it
}

namespace trireme::cuda {

namespace {

namespace fe = cudnn_frontend;

fe::graph::Tensor_attributes attributes_of(const FusedShape& s, Operand o) {
  fe::graph::Tensor_attributes made;
  made.set_uid(o);
  if (o == kLogSums)
    return made.set_data_type(fe::DataType_t::FLOAT)
        .set_dim({s.batch, s.heads, s.queries, 1})
        .set_stride({s.heads * s.queries, s.queries, 1, 1});
  const auto& [sample, head, row] = s.strides[o];
  return made.set_dim({s.batch, s.heads, s.rows_of(o), s.width_of(o)}).set_stride({sample, head, row, 1});
}

/// The front end makes results itself.
void set_result(const FusedShape& s, Operand o, const std::shared_ptr<fe::graph::Tensor_attributes>& result) {
  const fe::graph::Tensor_attributes wanted = attributes_of(s, o);
  result->set_output(true).set_uid(o).set_dim(wanted.get_dim()).set_stride(wanted.get_stride());
  if (o == kLogSums) result->set_data_type(fe::DataType_t::FLOAT);
}

void add_forward(fe::graph::Graph& graph, const FusedShape& s) {
  auto options = fe::graph::SDPA_attributes().set_generate_stats(true).set_attn_scale(s.scale);
  if (s.causal) options.set_causal_mask(true);
  const auto in = [&](Operand o) { return graph.tensor(attributes_of(s, o)); };
  const auto [out, log_sums] = graph.sdpa(in(kQ), in(kK), in(kV), std::move(options));
  set_result(s, kOut, out);
  set_result(s, kLogSums, log_sums);
}

void add_backward(fe::graph::Graph& graph, const FusedShape& s) {
  // Else the gradient of q is summed in whatever order its parts are ready.
  auto options =
      fe::graph::SDPA_backward_attributes().set_attn_scale(s.scale).set_deterministic_algorithm(true);
  if (s.causal) options.set_causal_mask(true);
  const auto in = [&](Operand o) { return graph.tensor(attributes_of(s, o)); };
  const auto [dq, dk, dv] = graph.sdpa_backward(in(kQ), in(kK), in(kV), in(kOut), in(kOutGradient),
                                                in(kLogSums), std::move(options));
  set_result(s, kQGradient, dq);
  set_result(s, kKGradient, dk);
  set_result(s, kVGradient, dv);
}

/// A graph of the front end, and the kernels that run it once build() has made them.
class FusedPlan {
 public:
  /// `described` is null for this process's GPU.
  FusedPlan(const FusedShape& s, std::shared_ptr<const fe::DeviceProperties> described, int architecture,
            int processors) {
    const auto type = s.dtype == DType::kBFloat16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF;
    graph_.set_io_data_type(type)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT)
        .set_sm_version(architecture)
        .set_sm_count(processors);
    if (described) graph_.set_device_properties(std::move(described));
    if (s.backward)
      add_backward(graph_, s);
    else
      add_forward(graph_, s);
  }

  /// Lists the engines that one of the library's heuristics proposes, of which those whose bits vary are left
  /// out by build(). `handle` is null for a GPU that is described.
  PlanAttempt list_engines(cudnnHandle_t handle, fe::HeurMode_t mode) {
    PlanAttempt made;
    if (!did(graph_.validate(), made) || !did(graph_.build_operation_graph(handle), made) ||
        !did(graph_.create_execution_plans({mode}), made))
      return made;
    // The front end forgets what is deselected before it has a list.
    graph_.deselect_numeric_notes(
        {fe::NumericalNote_t::NONDETERMINISTIC, fe::NumericalNote_t::REDUCED_PRECISION_REDUCTION});
    return made;
  }

  /// Returns how a search for an engine ended that would support the graph; makes none.
  PlanAttempt find_supported() {
    PlanAttempt found;
    did(graph_.check_support(), found);
    return found;
  }

  std::size_t engines() const { return static_cast<std::size_t>(graph_.get_execution_plan_count()); }

  /// Makes the kernels of engine `index`.
  PlanAttempt build(std::size_t index) {
    PlanAttempt made;
    if (did(graph_.build_plan_at_index(static_cast<std::int64_t>(index)), made))
      did(graph_.get_workspace_size(workspace_), made);
    return made;
  }

  /// Names the engine that build() took last.
  std::string engine() const {
    std::string name;
    if (graph_.get_plan_name(name).is_bad()) name = "unknown engine";
    return fmt::format("cuDNN {}, workspace {}", name, workspace_);
  }

  void enqueue(const std::array<void*, kOperands>& memory) {
    const Scratch workspace(static_cast<std::size_t>(workspace_));
    Run run{this, {}, workspace.as<void>()};
    std::ranges::copy(memory, run.memory);
    enqueue_call(run, this);
  }

 private:
  struct Run {
    FusedPlan* plan;
    void* memory[kOperands];
    void* workspace;
    void operator()(Stream stream) const { plan->run(*this, stream); }
  };

  /// Returns true if the front end did it; otherwise `made` says why not.
  static bool did(fe::error_object result, PlanAttempt& made) {
    if (result.is_good()) return true;
    const bool device_failed = result == fe::error_code_t::CUDA_API_FAILED ||
                               result == fe::error_code_t::HANDLE_ERROR ||
                               result == fe::error_code_t::INVALID_CUDA_DEVICE;
    made = front_end_attempt(result.get_message(), device_failed);
    return false;
  }

  void run(const Run& run, Stream stream) {
    std::unordered_map<std::int64_t, void*> memory;
    for (int o = 0; o < kOperands; ++o)
      if (run.memory[o]) memory[o] = run.memory[o];
    dnn::this_gpu().use(stream, [&](cudnnHandle_t handle) {
      if (auto result = graph_.execute(handle, memory, run.workspace); result.is_bad())
        fail(ExitCode::kInternal, "cudnn: attention failed: {}", result.get_message());
    });
  }

  fe::graph::Graph graph_;
  std::int64_t workspace_ = 0;
};

void load() { cudnn_frontend::cudnn_dlhandle = dnn::api().library.handle(); }

/// A plan, or why there is none.
struct Chosen {
  std::unique_ptr<FusedPlan> plan;
  std::string refusal;
};

/// Chooses among the engines that one of the library's heuristics proposes.
Chosen choose(const FusedShape& shape, const std::string& operation, fe::HeurMode_t mode) {
  const Capability gpu = capability();
  std::unique_ptr<FusedPlan> plan;
  const PlanAttempt listed = attempt_twice(
      [&] {
        plan = std::make_unique<FusedPlan>(shape, nullptr, 10 * gpu.major + gpu.minor, gpu.processors);
        return plan->list_engines(dnn::this_gpu().handle(), mode);
      },
      release_cached_memory, "listing engines for " + operation);
  if (listed.outcome != PlanAttempt::kMade) return {nullptr, listed.reason};
  std::string reason = "cuDNN has no engine for it";
  const auto built = choose_plan(
      plan->engines(),
      [&](std::size_t i) {
        PlanAttempt made = plan->build(i);
        if (made.outcome != PlanAttempt::kMade) reason = made.reason;
        return made;
      },
      release_cached_memory, operation);
  if (!built) return {nullptr, reason};
  return {std::move(plan), ""};
}

Chosen choose(const FusedShape& shape, const std::string& operation) {
  load();
  if (std::string missing = missing_cuda_runtime(); !missing.empty()) return {nullptr, std::move(missing)};
  Chosen first = choose(shape, operation, fe::HeurMode_t::A);
  if (first.plan) return first;
  Chosen second = choose(shape, operation, fe::HeurMode_t::FALLBACK);
  return second.plan ? std::move(second) : std::move(first);
}

}  // namespace

std::string run_fused_attention(const FusedShape& shape, const std::array<void*, kOperands>& memory) {
  static std::mutex mutex;
  static auto* const plans = new std::map<FusedShape, Chosen>;  // shapes repeat
  const std::lock_guard lock(mutex);
  auto found = plans->find(shape);
  if (found == plans->end()) {
    const std::string operation = describe(shape);
    found = plans->emplace(shape, choose(shape, operation)).first;
    const FusedPlan* const plan = found->second.plan.get();
    add_engine(operation, plan ? plan->engine() : "not fused");
  }
  if (found->second.plan) found->second.plan->enqueue(memory);
  return found->second.refusal;
}

std::string missing_cuda_runtime() {
  try {
    fe::detail::get_cuda_runtime_version();
    return "";
  } catch (const std::exception& error) {
    return fmt::format(
        "cuDNN's front end cannot use the CUDA runtime: {}; install libcudart.so.12 or .13 or set "
        "LD_LIBRARY_PATH to where it lies",
        error.what());
  }
}

std::string fused_attention_version() {
  return fmt::format("front end {}.{}.{}", CUDNN_FRONTEND_MAJOR_VERSION, CUDNN_FRONTEND_MINOR_VERSION,
                     CUDNN_FRONTEND_PATCH_VERSION);
}

std::string refuse_fused_attention(const FusedShape& shape, const std::string& gpu, int architecture,
                                   int processors) {
  load();
  const auto described = std::make_shared<fe::DeviceProperties>();
  if (auto result = described->deserialize({gpu.begin(), gpu.end()}); result.is_bad())
    return result.get_message();
  std::string refusal;
  for (const auto mode : {fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK}) {
    FusedPlan plan(shape, described, architecture, processors);
    PlanAttempt found = plan.list_engines(nullptr, mode);
    if (found.outcome == PlanAttempt::kMade) found = plan.find_supported();
    if (found.outcome == PlanAttempt::kMade) return "";
    if (refusal.empty()) refusal = found.reason;
  }
  return refusal;
}

}  // namespace trireme::cuda
