#include "distributed/ddp/replica.h"

#include <algorithm>

#include "core/autograd/autograd.h"

namespace trireme {

namespace {

std::size_t total_elements(const std::vector<NamedTensor>& tensors) {
  std::size_t count = 0;
  for (const NamedTensor& t : tensors) count += static_cast<std::size_t>(t.tensor.numel());
  return count;
}

}  // namespace

Replica::Replica(nn::Module& model, DataParallelContext& context, std::string name)
    : name_(std::move(name)),
      comm_(context.comm()),
      parameters_(model.parameters()),
      buffers_(model.buffers()),
      buffer_momentum_(buffers_.size()),
      reducer_(comm_, context.shards(), parameters_, context.reducer_options()),
      statistics_(comm_, context.shards(), total_elements(buffers_) + buffers_.size(),
                  context.reducer_options().reduction, name_ + " statistics") {
  nn::name_modules(model);
  std::size_t offset = 0;
  for (const NamedTensor& buffer : buffers_) {
    TRIREME_CHECK(buffer.tensor.dtype() == DType::kFloat32 && buffer.tensor.is_contiguous(),
                  "data parallel: buffer {} must be a row-major float32 tensor", buffer.name);
    buffer_offsets_.push_back(offset);
    offset += static_cast<std::size_t>(buffer.tensor.numel());
  }
  Event last;
  for (const auto* list : {&parameters_, &buffers_})
    for (const NamedTensor& t : *list) {
      const auto bytes = static_cast<std::size_t>(t.tensor.numel()) * sizeof(float);
      last = comm_.broadcast({static_cast<std::byte*>(t.tensor.raw()), bytes}, 0, "initial " + t.name);
    }
  last.wait();
}

Replica::~Replica() {
  if (nn::statistics_sink() == this) nn::statistics_sink() = nullptr;
}

void Replica::hook_parameters() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].tensor.requires_grad()) continue;
    // The tensors may outlive this replica.
    register_post_accumulate_hook(parameters_[i].tensor,
                                  [self = weak_from_this(), i](const Tensor& parameter) {
                                    const auto replica = self.lock();
                                    if (!replica || replica->finished_) return;
                                    replica->reducer_.add(i, parameter.grad());
                                    parameter.set_grad({});
                                  });
  }
}

void Replica::begin_step(std::int64_t step) {
  step_ = step;
  finished_ = false;
}

void Replica::begin_shard(float weight) {
  weight_ = weight;
  reducer_.begin_shard();
  std::fill_n(statistics_.leaf(), statistics_.count(), 0.0f);
  nn::statistics_sink() = this;
}

void Replica::end_shard() {
  nn::statistics_sink() = nullptr;
  reducer_.end_shard();
  statistics_.push();
}

void Replica::observe(const Tensor& running, const Tensor& value, double momentum) {
  const auto found = std::find_if(buffers_.begin(), buffers_.end(),
                                  [&](const NamedTensor& b) { return b.tensor.is_same(running); });
  TRIREME_CHECK(found != buffers_.end(), "data parallel: statistics of a buffer that is not part of {}",
                name_);
  const auto index = static_cast<std::size_t>(found - buffers_.begin());
  buffer_momentum_[index] = momentum;
  float* slot = statistics_.leaf() + buffer_offsets_[index];
  const float* in = value.data<float>();
  for (std::int64_t i = 0; i < value.numel(); ++i) slot[i] += in[i] * weight_;
  statistics_.leaf()[statistics_.count() - buffers_.size() + index] += weight_;
}

void Replica::finish() {
  if (finished_) return;
  finished_ = true;
  statistics_.launch(1);
  const std::string bad = reducer_.finish();
  statistics_.finish();
  if (!bad.empty())
    throw AgreedError(
        ExitCode::kNonFinite,
        fmt::format("step {}: {}; lower --lr, use --clip-norm, or look at the data of this step; "
                    "parameters are those before the step",
                    step_, bad));
  apply_statistics();
}

void Replica::apply_statistics() {
  const float* sums = statistics_.result().data<float>();
  const float* weights = sums + statistics_.count() - buffers_.size();
  for (std::size_t b = 0; b < buffers_.size(); ++b) {
    if (!(weights[b] > 0)) continue;
    const Tensor& running = buffers_[b].tensor;
    const auto keep = static_cast<float>(1 - buffer_momentum_[b]),
               take = static_cast<float>(buffer_momentum_[b]);
    float* out = running.data<float>();
    for (std::int64_t i = 0; i < running.numel(); ++i)
      out[i] = out[i] * keep + sums[buffer_offsets_[b] + static_cast<std::size_t>(i)] / weights[b] * take;
    running.bump_version("the step's statistics");
  }
}

void Replica::attach(optim::Optimizer& optimizer) { optimizers_.push_back(&optimizer); }
void Replica::detach(optim::Optimizer& optimizer) { std::erase(optimizers_, &optimizer); }

std::vector<NamedTensor> Replica::state() const {
  std::vector<NamedTensor> all;
  for (const auto* list : {&parameters_, &buffers_})
    for (const NamedTensor& t : *list) all.push_back({name_ + "." + t.name, t.tensor});
  for (std::size_t i = 0; i < optimizers_.size(); ++i)
    for (const NamedTensor& t : optimizers_[i]->state())
      all.push_back(
          {fmt::format("{}.optimizer{}.{}", name_, i ? std::to_string(i + 1) : "", t.name), t.tensor});
  return all;
}

}  // namespace trireme
