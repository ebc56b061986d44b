#include "kernels/cuda/cudnn.h"

#include <algorithm>
#include <numeric>

#include "kernels/cuda/memory.h"
#include "kernels/cuda/recorder.h"
#include "kernels/error.h"

namespace trireme::cuda::dnn {

namespace {

/// An engine that needs a larger workspace is not used. The workspace depends on the shape alone, and so does
/// this choice.
constexpr std::int64_t kMostWorkspace = std::int64_t{1} << 30;

cudnnDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return CUDNN_DATA_FLOAT;
    case DType::kFloat64:
      return CUDNN_DATA_DOUBLE;
    case DType::kBFloat16:
      return CUDNN_DATA_BFLOAT16;
    case DType::kFloat16:
      return CUDNN_DATA_HALF;
    default:
      fail(ExitCode::kInternal, "cudnn: needs floating point, got {}", name_of(dtype));
  }
}

/// Says how a call ended that makes a plan or lists engines. Every status that begins with
/// CUDNN_STATUS_NOT_SUPPORTED means that the library has no such engine; any other failure is an accident.
PlanAttempt attempt_of(cudnnStatus_t status) {
  if (status == CUDNN_STATUS_SUCCESS) return {};
  char more[256] = "";
  api().cudnnGetLastErrorString(more, sizeof more);
  const bool is_supported = CUDNN_STATUS_CATEGORY(status) != CUDNN_STATUS_NOT_SUPPORTED;
  return {is_supported ? PlanAttempt::kFailed : PlanAttempt::kNotSupported,
          fmt::format("{}{}{}", api().cudnnGetErrorString(status), *more ? ": " : "", more)};
}

/// Appends the engine configurations that the library's heuristic proposes, best first. Returns the status of
/// the query.
cudnnStatus_t propose(const Target& target, const Descriptor& graph, cudnnBackendHeurMode_t mode,
                      std::vector<Descriptor>& configs) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph)
      .set_one(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  // Else the graph's handle says for which device.
  if (!target.handle()) heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target.properties());
  if (const cudnnStatus_t status = heuristics.try_finalize(); status != CUDNN_STATUS_SUCCESS) return status;
  std::int64_t count = 0;
  check(api().cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr),
        "the number of engines");
  std::vector<Descriptor> found;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < count; ++i)
    raw.push_back(found.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  if (count > 0)
    check(api().cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, raw.data()),
          "the list of engines");
  for (std::int64_t i = 0; i < count; ++i) configs.push_back(std::move(found[static_cast<std::size_t>(i)]));
  return CUDNN_STATUS_SUCCESS;
}

/// Fills `engine` with the engine of a configuration.
cudnnBackendDescriptor_t get_engine(const Descriptor& config, const Descriptor& engine) {
  cudnnBackendDescriptor_t raw = engine.get();
  std::int64_t count = 0;
  check(api().cudnnBackendGetAttribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw),
        "an engine");
  return raw;
}

std::int64_t get_number(cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t name) {
  std::int64_t value = 0, count = 0;
  check(api().cudnnBackendGetAttribute(from, name, CUDNN_TYPE_INT64, 1, &count, &value),
        "a property of an engine");
  return value;
}

/// Returns the engine's number in the library, and its settings: "engine 62, knobs 2=13 7=1".
std::string engine_name(const Descriptor& config) {
  const Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  std::string name =
      fmt::format("engine {}", get_number(get_engine(config, engine), CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  std::vector<Descriptor> knobs;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int i = 0; i < CUDNN_KNOB_TYPE_COUNTS; ++i)
    raw.push_back(knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR).get());
  std::int64_t count = 0;
  check(api().cudnnBackendGetAttribute(config.get(), CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, std::ssize(raw), &count, raw.data()),
        "an engine's knobs");
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    cudnnBackendKnobType_t type{};
    std::int64_t one = 0;
    check(api().cudnnBackendGetAttribute(raw[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                                         &one, &type),
          "an engine's knob");
    name += fmt::format("{}{}={}", i == 0 ? ", knobs " : " ", static_cast<int>(type),
                        get_number(raw[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
  }
  return name;
}

/// Returns true if an engine gives the same bits each time, sums in float32, and multiplies float32 as
/// float32.
bool is_exact(const Descriptor& config, DType dtype) {
  const Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  const cudnnBackendDescriptor_t raw = get_engine(config, engine);
  std::int64_t count = 0;
  std::vector<cudnnBackendNumericalNote_t> notes(CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  check(api().cudnnBackendGetAttribute(raw, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                       CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()),
        "an engine's notes");
  notes.resize(std::min(notes.size(), static_cast<std::size_t>(count)));
  const auto has = [&](cudnnBackendNumericalNote_t note) {
    return std::find(notes.begin(), notes.end(), note) != notes.end();
  };
  if (has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) || has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS) ||
      has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION))
    return false;
  // In float32 tensor cores mean TF32, whose factors have 10 bits.
  const bool wide = dtype == DType::kFloat32 || dtype == DType::kFloat64;
  return !wide || !(has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) || has(CUDNN_NUMERICAL_NOTE_WINOGRAD) ||
                    has(CUDNN_NUMERICAL_NOTE_FFT));
}

}  // namespace

const Api& api() {
  static const Api* const one = new Api;
  return *one;
}

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char more[256] = "";
  api().cudnnGetLastErrorString(more, sizeof more);
  fail(ExitCode::kInternal, "cudnn: {} failed: {}{}{}", what, api().cudnnGetErrorString(status),
       *more ? ": " : "", more);
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check(api().cudnnBackendCreateDescriptor(type, &made_), "making a descriptor");
}
Descriptor::~Descriptor() {
  if (made_)
    report_failure(api().cudnnBackendDestroyDescriptor(made_) != CUDNN_STATUS_SUCCESS,
                   "cudnnBackendDestroyDescriptor");
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                            std::int64_t count, const void* values) {
  check(api().cudnnBackendSetAttribute(made_, name, type, count, values), "setting an attribute");
  return *this;
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& other) {
  return set_one(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, other.made_);
}
Descriptor& Descriptor::finalize() {
  check(api().cudnnBackendFinalize(made_), "a descriptor");
  return *this;
}
cudnnStatus_t Descriptor::try_finalize() { return api().cudnnBackendFinalize(made_); }

Descriptor tensor(std::int64_t id, DType dtype, std::span<const std::int64_t> dims,
                  std::span<const std::int64_t> strides) {
  Descriptor made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  made.set_one(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type_of(dtype))
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, dims)
      .set(CUDNN_ATTR_TENSOR_STRIDES, strides)
      .set_one(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id)
      .set_one(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, static_cast<std::int64_t>(Aligned::kBytes))
      .finalize();
  return made;
}

Target::Target() : properties_(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
  take_device();  // the handle's
  check(api().cudnnCreate(&handle_), "cudnnCreate");
  properties_.set_one(CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, handle_).finalize();
}

Target::Target(const std::string& json) : properties_(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
  properties_
      .set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<std::int64_t>(json.size()),
           json.data())
      .finalize();
}

const Target& this_gpu() {
  static const Target* const one = new Target;
  return *one;
}

Plan::Plan(const Target& target, std::vector<Descriptor> parts, DType dtype, const std::string& operation)
    : parts_(std::move(parts)) {
  const auto release = [&] {
    if (target.handle()) release_cached_memory();
  };
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, parts_.back());
  if (target.handle()) graph_.set_one(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, target.handle());
  graph_.finalize();
  std::vector<Descriptor> configs;
  std::string reason;
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    const PlanAttempt listed =
        attempt_twice([&] { return attempt_of(propose(target, graph_, mode, configs)); }, release,
                      "listing engines for " + operation);
    if (listed.outcome != PlanAttempt::kMade) reason = " (" + listed.reason + ")";
  }
  const auto chosen = choose_plan(
      configs.size(), [&](std::size_t i) { return attempt(target, configs[i], dtype); }, release, operation);
  if (!chosen)
    fail(ExitCode::kInternal, "cudnn: none of {} engines can compute {}{}", configs.size(), operation,
         reason);
  config_ = std::make_unique<Descriptor>(std::move(configs[*chosen]));
  if (target.handle())
    add_engine(operation, fmt::format("cuDNN {}, workspace {}", engine_name(*config_), workspace_));
}

PlanAttempt Plan::attempt(const Target& target, const Descriptor& config, DType dtype) {
  if (!is_exact(config, dtype)) return {PlanAttempt::kNotSupported, "its bits may vary"};
  auto plan = std::make_unique<Descriptor>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan->set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  if (target.handle()) plan->set_one(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, target.handle());
  if (PlanAttempt made = attempt_of(plan->try_finalize()); made.outcome != PlanAttempt::kMade) return made;
  workspace_ = get_number(plan->get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
  if (workspace_ > kMostWorkspace) return {PlanAttempt::kNotSupported, "its workspace is too large"};
  plan_ = std::move(plan);
  return {};
}

void Plan::enqueue(const Target& target, std::span<void* const> memory) const {
  TRIREME_CHECK(memory.size() <= kMostTensors, "cudnn: {} tensors, at most {} are expected", memory.size(),
                kMostTensors);
  const Scratch workspace(static_cast<std::size_t>(workspace_));
  Run run{this, &target, memory.size(), {}, workspace.as<void>()};
  std::ranges::copy(memory, run.memory);
  enqueue_call(run, this);
}

void Plan::run(const Run& run, Stream stream) const {
  std::vector<std::int64_t> ids(run.tensors);
  std::iota(ids.begin(), ids.end(), 0);
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set_one(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, run.workspace)
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<std::int64_t>(run.tensors),
           run.memory)
      .set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids)
      .finalize();
  run.target->use(stream, [&](cudnnHandle_t handle) {
    check(api().cudnnBackendExecute(handle, plan_->get(), pack.get()), "cudnnBackendExecute");
  });
}

}  // namespace trireme::cuda::dnn
