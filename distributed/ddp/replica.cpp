#include "distributed/ddp/replica.h"

#include <algorithm>
#include <limits>

#include "core/autograd/autograd.h"
#include "core/tensor/observer.h"
#include "distributed/comm/agree.h"

namespace trireme {

namespace {

std::size_t total_elements(const std::vector<NamedTensor>& tensors) {
  std::size_t count = 0;
  for (const NamedTensor& t : tensors) count += static_cast<std::size_t>(t.tensor.numel());
  return count;
}

std::vector<NamedTensor> those_with_gradients(std::vector<NamedTensor> parameters) {
  std::erase_if(parameters, [](const NamedTensor& p) { return !p.tensor.requires_grad(); });
  return parameters;
}

nn::Module& moved(nn::Module& model, Device device) {
  nn::move_to(model, device);
  return model;
}

/// Buckets and errors name their model: two models may well be built alike.
std::vector<NamedTensor> with_prefix(const std::string& name, std::vector<NamedTensor> tensors) {
  for (NamedTensor& t : tensors) t.name = name + "." + t.name;
  return tensors;
}

/// Returns the prefix of module paths. It differs between models, because random layers derive keys from
/// paths.
std::string root_path(const std::string& name) { return name == kDefaultModelName ? "" : name + ":"; }

}  // namespace

DataParallelContext::~DataParallelContext() {
  if (nn::statistics_sink() != this) return;
  nn::statistics_sink() = nullptr;
  nn::batch_sync() = nullptr;
}

void DataParallelContext::add(std::shared_ptr<Replica> replica) {
  for (const auto& other : replicas_)
    if (other->name() == replica->name())
      fail(ExitCode::kUsage, "data parallel: two models are called {}; give each a name", replica->name());
  replicas_.push_back(std::move(replica));
}

void DataParallelContext::remove(const std::shared_ptr<Replica>& replica) {
  replica->close();
  std::erase(replicas_, replica);
}

void DataParallelContext::begin_round(std::int64_t step) {
  for (const auto& replica : replicas_) replica->begin_round(step);
}

void DataParallelContext::begin_shard(float weight) {
  for (const auto& replica : replicas_) replica->begin_shard(weight);
  nn::statistics_sink() = this;
  nn::batch_sync() = batch_sync_;
}

void DataParallelContext::end_shard() {
  nn::statistics_sink() = nullptr;
  nn::batch_sync() = nullptr;
  for (const auto& replica : replicas_) replica->end_shard();
  launch_ready();
  for (const auto& replica : replicas_) replica->launch_statistics();
}

void DataParallelContext::launch_ready() {
  for (const auto& replica : replicas_)
    if (!replica->launch_ready()) return;
}

bool DataParallelContext::observe(const Tensor& running, const Tensor& value, double momentum) {
  return std::ranges::any_of(replicas_, [&](const auto& r) { return r->observe(running, value, momentum); });
}

Replica::Replica(nn::Module& model, DataParallelContext& context, std::string name)
    : name_(std::move(name)),
      context_(context),
      parameters_(moved(model, context.device()).parameters()),
      buffers_(model.buffers()),
      trained_(those_with_gradients(parameters_)),
      averaged_(model.statistics()),
      reducer_(context.gradient_comm(), context.shards(), with_prefix(name_, trained_),
               context.reducer_options()),
      statistics_(context.gradient_comm(), context.shards(), total_elements(averaged_) + 2 * averaged_.size(),
                  2 * averaged_.size(), SumOptions{reducer_.options().reduction}, name_ + " statistics") {
  for (std::size_t i = 0; i < trained_.size(); ++i) index_of_[trained_[i].tensor.impl()] = i;
  nn::name_modules(model, root_path(name_));
  std::size_t offset = 0;
  for (const NamedTensor& buffer : averaged_) {
    TRIREME_CHECK(buffer.tensor.dtype() == DType::kFloat32 && buffer.tensor.is_contiguous(),
                  "data parallel: running statistics {}.{} must be a row-major float32 tensor", name_,
                  buffer.name);
    offsets_.push_back(offset);
    offset += static_cast<std::size_t>(buffer.tensor.numel());
  }
  std::vector<Fact> facts;
  for (const auto* list : {&parameters_, &buffers_})
    for (const NamedTensor& t : *list)
      facts.push_back(
          {t.name, fmt::format("{} of {}{}", t.tensor.shape().to_string(), name_of(t.tensor.dtype()),
                               t.tensor.requires_grad() ? ", trained" : "")});
  agree_same(context.comm(), "tensors of " + name_, facts, ExitCode::kUsage,
             "build the same model on all ranks");
  broadcast_state();
}

void Replica::broadcast_state() {
  Event last;
  for (const auto* list : {&parameters_, &buffers_})
    for (const NamedTensor& t : *list) {
      TRIREME_CHECK(t.tensor.is_contiguous(), "data parallel: {}.{} must be row-major in memory", name_,
                    t.name);
      last = context_.gradient_comm().broadcast(memory_of(t.tensor), 0,
                                                fmt::format("initial {}.{}", name_, t.name));
    }
  last.wait();
}

void Replica::hook_parameters() {
  for (std::size_t i = 0; i < trained_.size(); ++i) {
    // The tensors may outlive this replica.
    register_post_accumulate_hook(trained_[i].tensor, [self = weak_from_this(), i](const Tensor& parameter) {
      const auto replica = self.lock();
      if (!replica || !replica->open_) return;
      replica->reducer_.add(i, parameter.grad());
      parameter.set_grad({});
      replica->context_.launch_ready();
    });
  }
}

void Replica::begin_round(std::int64_t step) {
  step_ = step;
  open_ = true;
}

void Replica::begin_shard(float weight) {
  weight_ = weight;
  reducer_.begin_shard();
  kernels_for(statistics_.leaf().device()).fill(statistics_.leaf().view(), 0);
  seen_.assign(2 * averaged_.size(), 0);
}

void Replica::end_shard() {
  reducer_.end_shard();
  statistics_.push(seen_);
}

bool Replica::launch_ready() { return reducer_.launch_ready(); }

void Replica::launch_statistics() {
  if (statistics_.complete()) statistics_.launch();
}

bool Replica::observe(const Tensor& running, const Tensor& value, double momentum) {
  const auto found =
      std::ranges::find_if(averaged_, [&](const NamedTensor& b) { return b.tensor.is_same(running); });
  if (found == averaged_.end()) return false;
  const auto index = static_cast<std::size_t>(found - averaged_.begin());
  const Tensor slot = part_of(statistics_.leaf(), index), share = Tensor::empty_like(slot);
  const KernelTable& k = kernels_for(slot.device());
  k.unary(UnaryOp::mul_scalar, share.view(), value.view(), {static_cast<double>(weight_)});
  k.binary(BinaryOp::add, slot.view(), slot.view(), share.view());
  seen_[index] += weight_;
  // The momentum is summed, too, because a rank whose shards had no samples does not know it.
  seen_[averaged_.size() + index] += static_cast<float>(momentum) * weight_;
  return true;
}

void Replica::finish() {
  check_up_to(step_ - 1);
  if (open_) {
    open_ = false;
    const std::string bad = reducer_.finish();
    statistics_.finish();
    throw_if_bad(step_, bad);
    apply_statistics();
  }
  check_up_to(step_);
}

const std::int64_t* Replica::finish_later() {
  // If every step is checked at once, the CPU decides whether to update. It may expect errors (GradScaler).
  if (!open_ || !reducer_.can_finish_later()) {
    if (open_) finish();
    return unchecked_.empty() ? nullptr : reducer_.halted();
  }
  open_ = false;
  if (unchecked_.size() > 1) check_up_to(unchecked_.front().step);
  unchecked_.push_back({step_, reducer_.finish_later()});
  statistics_.finish();
  apply_statistics();
  return reducer_.halted();
}

void Replica::check_up_to(std::int64_t step) {
  while (!unchecked_.empty() && unchecked_.front().step <= step) {
    const Unchecked first = unchecked_.front();
    unchecked_.pop_front();
    throw_if_bad(first.step, reducer_.check(first.ticket));
  }
}

void Replica::throw_if_bad(std::int64_t step, const std::string& bad) const {
  if (!bad.empty())
    throw AgreedError(
        ExitCode::kNonFinite,
        fmt::format("step {}: {}; lower --lr, use --clip-norm, or look at the data of this step; "
                    "parameters are those before the step",
                    step + 1, bad));
}

std::optional<Share> Replica::share_of(const Tensor& parameter) const {
  const auto found = index_of_.find(parameter.impl());
  return found == index_of_.end() ? std::nullopt : reducer_.share_of(found->second);
}

Tensor Replica::gradient_of(const Tensor& parameter) const {
  const auto found = index_of_.find(parameter.impl());
  const bool has_share = reducer_.options().zero && found != index_of_.end();
  return has_share ? reducer_.gradient_share(found->second) : parameter.grad();
}

void Replica::complete_squares(std::span<const Tensor> parameters, std::span<double> chunks) {
  reducer_.complete_squares(indices_of(parameters), chunks);
}

void Replica::updated(std::span<const Tensor> parameters) { reducer_.share_updates(indices_of(parameters)); }

std::vector<std::size_t> Replica::indices_of(std::span<const Tensor> parameters) const {
  std::vector<std::size_t> indices;
  for (const Tensor& parameter : parameters) {
    const auto found = index_of_.find(parameter.impl());
    TRIREME_CHECK(found != index_of_.end(), "data parallel: {} has no parameter of shape {} that was given",
                  name_, parameter.shape().to_string());
    indices.push_back(found->second);
  }
  return indices;
}

void Replica::apply_statistics() {
  if (averaged_.empty()) return;
  std::vector<RunningSlice> slices;
  const float *const weights = statistics_.result_notes(), *const momenta = weights + averaged_.size();
  for (std::size_t b = 0; b < averaged_.size(); ++b) {
    const Tensor& running = averaged_[b].tensor;
    slices.push_back({running.view(), part_of(statistics_.result(), b).view(), weights + b, momenta + b});
    running.bump_version("the step's statistics");
  }
  kernels_for(context_.device()).running_average(slices, reducer_.halted());
}

Tensor Replica::part_of(const Tensor& statistics, std::size_t buffer) const {
  const Tensor& like = averaged_[buffer].tensor;
  return statistics.alias(like.shape(), like.strides(), static_cast<std::int64_t>(offsets_[buffer]));
}

double Replica::last_lr() const {
  return optimizers_.empty() ? std::numeric_limits<double>::quiet_NaN() : optimizers_.front()->last_lr();
}

void Replica::attach(optim::Optimizer& optimizer) { optimizers_.push_back(&optimizer); }
void Replica::detach(optim::Optimizer& optimizer) { std::erase(optimizers_, &optimizer); }

std::vector<NamedTensor> Replica::weights() const {
  std::vector<NamedTensor> all;
  for (const auto* list : {&parameters_, &buffers_})
    for (const NamedTensor& t : *list) all.push_back({name_ + "." + t.name, t.tensor});
  return all;
}

std::vector<StateTensor> Replica::state() const {
  std::vector<StateTensor> all;
  for (const NamedTensor& t : weights()) all.push_back({t, {}});
  const auto add = [&](const std::string& owner, const std::vector<StateTensor>& tensors) {
    for (const StateTensor& t : tensors) all.push_back({{name_ + owner + t.name, t.tensor}, t.part});
  };
  add(".hook.", reducer_.hook_state());
  for (std::size_t i = 0; i < optimizers_.size(); ++i)
    add(fmt::format(".optimizer{}.", i ? std::to_string(i + 1) : ""), optimizers_[i]->state());
  return all;
}

}  // namespace trireme
