#include "distributed/ddp/reducer.h"

#include <algorithm>
#include <numeric>

#include "core/autograd/autograd.h"
#include "core/tensor/observer.h"

namespace trireme {

namespace {

constexpr std::size_t kFirstBucketBytes = 1 << 20;  // communication should start soon after backward does

std::string label_of(std::size_t index, const BucketPlan& plan, const std::vector<NamedTensor>& parameters) {
  return fmt::format("bucket {} ({}{})", index, parameters[plan.tensors[0]].name,
                     plan.tensors.size() > 1 ? " ..." : "");
}

}  // namespace

Reducer::Reducer(Communicator& comm, int shards, std::vector<NamedTensor> parameters, ReducerOptions options)
    : comm_(comm),
      shards_(shards),
      range_(shards_of_rank(shards, comm.size(), comm.rank())),
      options_(options),
      parameters_(std::move(parameters)),
      halted_(Tensor::zeros({1}, DType::kInt64, comm.device())) {
  for (const NamedTensor& p : parameters_)
    TRIREME_CHECK(
        p.tensor.dtype() == DType::kFloat32 && p.tensor.is_contiguous() && p.tensor.device() == comm.device(),
        "data parallel: parameter {} must be a row-major float32 tensor on {}, is {} on {}", p.name,
        name_of(comm.device()), name_of(p.tensor.dtype()), name_of(p.tensor.device()));
  // The first guess: last layers first. The true order is known after the first step.
  std::vector<std::size_t> order(parameters_.size());
  std::iota(order.rbegin(), order.rend(), 0);
  planned_from_order_ = options_.zero;
  used_.resize(parameters_.size());
  updated_.resize(parameters_.size());
  if (options_.hook) options_.hook->attach(parameters_, shards_, range_);
  make_buckets(order);
}

void Reducer::set_hook(std::shared_ptr<CommHook> hook) {
  TRIREME_CHECK(!began_, "data parallel: a communication hook must be there before the first step");
  options_.hook = std::move(hook);
  options_.hook->attach(parameters_, shards_, range_);
  std::vector<std::size_t> order;
  for (const Bucket& bucket : buckets_)
    order.insert(order.end(), bucket.plan.tensors.begin(), bucket.plan.tensors.end());
  make_buckets(order);
}

std::vector<StateTensor> Reducer::hook_state() const {
  return options_.hook ? options_.hook->state() : std::vector<StateTensor>();
}

std::vector<GradientBucket::Entry> Reducer::entries_of(const BucketPlan& plan) const {
  std::vector<GradientBucket::Entry> entries;
  for (std::size_t slot = 0; slot < plan.tensors.size(); ++slot) {
    const NamedTensor& p = parameters_[plan.tensors[slot]];
    entries.push_back({p.name, p.tensor.shape(), plan.offsets[slot]});
  }
  return entries;
}

void Reducer::make_buckets(const std::vector<std::size_t>& order) {
  std::vector<std::size_t> elements;
  for (const NamedTensor& p : parameters_) elements.push_back(static_cast<std::size_t>(p.tensor.numel()));
  const std::size_t total = sizeof(float) * std::accumulate(elements.begin(), elements.end(), std::size_t{0});
  const std::size_t most =
      options_.bucket_bytes > 0 ? options_.bucket_bytes : best_bucket_bytes(total, options_.link);
  // A hook gets gradients as they are.
  const DType dtype = options_.hook ? DType::kFloat32 : options_.dtype;
  SumOptions sum{options_.reduction, dtype, 1.0f / static_cast<float>(shards_), {}, {}, halted_};
  buckets_.clear();
  places_.assign(parameters_.size(), {});
  for (BucketPlan& plan : plan_buckets(elements, order, most, std::min(most, kFirstBucketBytes))) {
    const std::size_t index = buckets_.size(), tensors = plan.tensors.size();
    for (std::size_t slot = 0; slot < tensors; ++slot) places_[plan.tensors[slot]] = {index, slot};
    if (options_.zero) sum.cuts = cut_bucket(plan, elements, comm_.size(), kSquaresChunk);
    if (options_.hook)
      sum.reduce = [this, entries = entries_of(plan), label = label_of(index, plan, parameters_)](
                       const std::vector<Tensor>& parts, const Tensor& mean) {
        GradientBucket bucket(comm_, shards_, entries, parts, mean, label);
        options_.hook->reduce(bucket);
      };
    // Behind the gradients rides one number per tensor: in how many shards it had a gradient.
    const std::size_t notes = tells_use() ? 0 : tensors;
    auto bucket = std::make_unique<ShardSum>(comm_, shards_, plan.elements + notes, notes, sum,
                                             label_of(index, plan, parameters_));
    buckets_.push_back(
        {std::move(plan), std::move(bucket), std::vector<bool>(tensors), 0, false, sum.cuts, false, Event()});
  }
}

void Reducer::begin_shard() {
  began_ = true;
  if (shards_done_ == 0) used_.assign(used_.size(), false);
  for (Bucket& bucket : buckets_) {
    std::fill(bucket.ready.begin(), bucket.ready.end(), false);
    bucket.ready_count = 0;
    bucket.pushed = false;
    bucket.is_shared = false;
  }
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    parameters_[i].tensor.set_grad({});
    // What ops write into the bucket at once need not be copied there.
    set_grad_memory(parameters_[i].tensor, slot_of(i));
  }
}

Tensor Reducer::slot_of(std::size_t index) {
  const Place place = places_[index];
  const Bucket& bucket = buckets_[place.bucket];
  const Tensor& p = parameters_[index].tensor;
  return bucket.sum->leaf().alias(p.shape(), p.strides(),
                                  static_cast<std::int64_t>(bucket.plan.offsets[place.slot]));
}

void Reducer::add(std::size_t index, Tensor gradient) {
  if (options_.shuffle_ready == 0) return take(index, gradient);
  held_.push_back({index, std::move(gradient)});
  release_shuffled(false);
}

void Reducer::release_shuffled(bool all) {
  const RandomKey key = random_key(options_.shuffle_ready, static_cast<std::uint64_t>(comm_.rank()), 0);
  while (!held_.empty()) {
    const auto draw = philox(key, 0, draws_++);
    if (!all && draw[0] % 4 != 0) return;
    const std::size_t pick = draw[1] % held_.size();
    const Held held = std::move(held_[pick]);
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(pick));
    take(held.index, held.gradient);
  }
}

void Reducer::take(std::size_t index, const Tensor& gradient) {
  const Place place = places_[index];
  Bucket& bucket = buckets_[place.bucket];
  if (bucket.pushed)
    fail(ExitCode::kUsage,
         "data parallel: {} got another gradient in a shard after its bucket was complete; call backward "
         "once per shard, "
         "on the sum of the losses, or use --overlap off",
         parameters_[index].name);
  set_grad_memory(parameters_[index].tensor, {});  // a second gradient is to be added
  const Tensor slot = slot_of(index);
  if (bucket.ready[place.slot]) {
    kernels_for(slot.device()).binary(BinaryOp::add, slot.view(), slot.view(), gradient.view());
    return;
  }
  if (gradient.raw() != slot.raw()) copy_into(slot, gradient);
  bucket.ready[place.slot] = true;
  ++bucket.ready_count;
  if (!planned_from_order_ && range_.first == 0 && shards_done_ == 0) ready_order_.push_back(index);
  if (options_.overlap && bucket.ready_count == bucket.ready.size()) complete(bucket);
}

void Reducer::complete(Bucket& bucket) {
  std::vector<float> used;
  for (std::size_t slot = 0; slot < bucket.ready.size(); ++slot) {
    used.push_back(bucket.ready[slot] ? 1.0f : 0.0f);
    if (bucket.ready[slot]) {
      used_[bucket.plan.tensors[slot]] = true;
      continue;
    }
    const Tensor unused = slot_of(bucket.plan.tensors[slot]);
    kernels_for(unused.device()).fill(unused.view(), 0);
  }
  bucket.sum->push(tells_use() ? std::span<const float>() : used);
  bucket.pushed = true;
}

bool Reducer::launch_ready() {
  if (!options_.overlap && shards_done_ < range_.size()) return false;
  for (; launched_ < buckets_.size() && buckets_[launched_].sum->complete(); ++launched_) {
    // These may write at once where the last updates still lie.
    if (options_.reduction == Reduction::kFastest || options_.hook) buckets_[launched_].shared.wait();
    buckets_[launched_].sum->launch();
  }
  return launched_ == buckets_.size();
}

void Reducer::end_shard() {
  for (const NamedTensor& p : parameters_) set_grad_memory(p.tensor, {});
  release_shuffled(true);
  for (Bucket& bucket : buckets_)
    if (!bucket.pushed) complete(bucket);
  ++shards_done_;
}

int Reducer::hand_over() {
  TRIREME_CHECK(shards_done_ == range_.size(), "data parallel: step finished after {} of {} shards",
                shards_done_, range_.size());
  launch_ready();
  int ticket = 0;  // that of all buckets, since each is launched once a round
  for (Bucket& bucket : buckets_) ticket = bucket.sum->finish();
  shards_done_ = 0;
  launched_ = 0;
  return ticket;
}

Reducer::Bad Reducer::first_bad(int ticket) const {
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    const auto [at, value] = buckets_[b].sum->first_bad(ticket);
    if (at < buckets_[b].sum->count())
      return {static_cast<std::int64_t>(b), static_cast<std::int64_t>(at), value};
  }
  return {};
}

std::string Reducer::finish() {
  const auto begin = std::chrono::steady_clock::now();
  const int ticket = hand_over();
  Bad bad = first_bad(ticket);
  if (tells_use()) bad = tell_use(bad);
  hand_out_gradients(ticket);
  const std::string text = text_of(bad);
  if (!text.empty()) {
    if (options_.hook) options_.hook->forget();
    kernels_of(comm_.device()).fill(halted_.view(), 0);  // whoever is told leaves the updates out
  }
  exposed_ += std::chrono::steady_clock::now() - begin;
  const bool any_used = std::ranges::find(used_, true) != used_.end();
  if (any_used && !planned_from_order_) adopt_ready_order();  // all ranks know alike whether any was used
  return text;
}

bool Reducer::can_finish_later() const {
  return !comm_.device().is_cpu() && !tells_use() && planned_from_order_;
}

int Reducer::finish_later() {
  const int ticket = hand_over();
  hand_out_gradients(ticket);
  return ticket;
}

std::string Reducer::check(int ticket) { return text_of(first_bad(ticket)); }

std::string Reducer::text_of(const Bad& bad) const {
  if (bad.bucket < 0) return "";
  const BucketPlan& plan = buckets_[static_cast<std::size_t>(bad.bucket)].plan;
  const auto after = std::ranges::upper_bound(plan.offsets, static_cast<std::size_t>(bad.element));
  const auto slot = static_cast<std::size_t>(after - plan.offsets.begin()) - 1;
  return fmt::format("the gradient of {} is not finite (element {} is {})",
                     parameters_[plan.tensors[slot]].name,
                     static_cast<std::size_t>(bad.element) - plan.offsets[slot], bad.value);
}

void Reducer::hand_out_gradients(int ticket) {
  for (const Bucket& bucket : buckets_) {
    const Tensor& sum = bucket.sum->result();
    for (std::size_t slot = 0; slot < bucket.plan.tensors.size(); ++slot) {
      const std::size_t index = bucket.plan.tensors[slot];
      const Tensor& p = parameters_[index].tensor;
      // What this rank used is used; of the rest the sum has to tell.
      if (!tells_use() && !used_[index]) used_[index] = bucket.sum->notes(ticket)[slot] > 0;
      p.set_grad(used_[index] && !options_.zero
                     ? sum.alias(p.shape(), p.strides(), static_cast<std::int64_t>(bucket.plan.offsets[slot]))
                     : Tensor());
    }
  }
}

void Reducer::adopt_ready_order() {
  planned_from_order_ = true;
  // The rank of shard 0 tells; parameters that had no gradient come last.
  std::vector<std::int64_t> order(parameters_.size());
  if (range_.first == 0) {
    std::vector<bool> seen(parameters_.size());
    std::size_t at = 0;
    for (std::size_t index : ready_order_) {
      order[at++] = static_cast<std::int64_t>(index);
      seen[index] = true;
    }
    for (std::size_t index = 0; index < seen.size(); ++index)
      if (!seen[index]) order[at++] = static_cast<std::int64_t>(index);
  }
  const Tensor told =
      to_device(Tensor::from(order, {static_cast<std::int64_t>(order.size())}), comm_.device());
  comm_.broadcast(memory_of(told), 0, "bucket order").wait();
  order = told.to_vector<std::int64_t>();
  // Grads are views of the old buckets' memory, which their storage keeps alive.
  make_buckets({order.begin(), order.end()});
}

}  // namespace trireme
