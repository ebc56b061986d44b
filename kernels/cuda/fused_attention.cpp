// Attention by cuDNN's front end, which knows what each version of the library calls it.
#include "kernels/cuda/fused_attention.h"

// Its functions are looked up in the library that is loaded already.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

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

constexpr std::int64_t kMostWorkspace = std::int64_t{1} << 30;

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

/// A graph whose kernels have been chosen, but not made.
class FusedPlan {
 public:
  /// `described` is null for this process's GPU. refusal() says how it went.
  FusedPlan(const FusedShape& s, std::shared_ptr<const fe::DeviceProperties> described, int architecture,
            int processors, cudnnHandle_t handle) {
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
    graph_.deselect_numeric_notes(
        {fe::NumericalNote_t::NONDETERMINISTIC, fe::NumericalNote_t::REDUCED_PRECISION_REDUCTION});
    tried(graph_.validate()) && tried(graph_.build_operation_graph(handle)) &&
        tried(graph_.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK})) &&
        tried(graph_.check_support());
  }

  const std::string& refusal() const { return refusal_; }

  /// Makes the kernels. False if none can be had.
  bool build() {
    return refusal_.empty() && tried(graph_.build_plans()) && tried(graph_.get_workspace_size(workspace_)) &&
           workspace_ <= kMostWorkspace;
  }

  void enqueue(const std::array<void*, kOperands>& memory) {
    const Scratch workspace(static_cast<std::size_t>(workspace_));
    Run run{this, {}, workspace.as<void>()};
    std::ranges::copy(memory, run.memory);
    enqueue_call(run);
  }

 private:
  struct Run {
    FusedPlan* plan;
    void* memory[kOperands];
    void* workspace;
    void operator()(Stream stream) const { plan->run(*this, stream); }
  };

  bool tried(fe::error_object result) {
    if (result.is_good()) return true;
    refusal_ = result.get_message();
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
  std::string refusal_;
  std::int64_t workspace_ = 0;
};

void load() { cudnn_frontend::cudnn_dlhandle = dnn::api().library.handle(); }

/// Null where there is none.
std::unique_ptr<FusedPlan> make_plan(const FusedShape& shape) {
  load();
  const Capability gpu = capability();
  const auto handle = dnn::this_gpu().handle();
  auto plan = std::make_unique<FusedPlan>(shape, nullptr, 10 * gpu.major + gpu.minor, gpu.processors, handle);
  return plan->build() ? std::move(plan) : nullptr;
}

}  // namespace

bool run_fused_attention(const FusedShape& shape, const std::array<void*, kOperands>& memory) {
  static std::mutex mutex;
  static auto* const plans = new std::map<FusedShape, std::unique_ptr<FusedPlan>>;  // shapes repeat
  const std::lock_guard lock(mutex);
  auto found = plans->find(shape);
  if (found == plans->end()) found = plans->emplace(shape, make_plan(shape)).first;
  if (!found->second) return false;
  found->second->enqueue(memory);
  return true;
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
  return FusedPlan(shape, described, architecture, processors, nullptr).refusal();
}

}  // namespace trireme::cuda
