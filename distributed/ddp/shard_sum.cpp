#include "distributed/ddp/shard_sum.h"

#include <cstring>
#include <utility>

#include "kernels/table.h"

namespace trireme {

namespace {

/// Zeros in memory of the communicator's.
Tensor vector_of(Communicator& comm, std::size_t count, DType dtype) {
  const std::size_t bytes = count * size_of(dtype);
  const std::shared_ptr<std::byte> memory = comm.allocate(bytes);
  auto impl = make_ref<TensorImpl>();
  // The tensor's memory goes when the last of its views goes.
  impl->storage = make_ref<Storage>(memory.get(), bytes, comm.device(), [memory] {});
  impl->shape = {static_cast<std::int64_t>(count)};
  impl->strides = {1};
  impl->dtype = dtype;
  const Tensor made(std::move(impl));
  kernels_of(made.device()).fill(made.view(), 0);
  return made;
}

/// Elements first..first+count-1 of a vector.
Tensor part_of(const Tensor& vector, std::size_t first, std::size_t count) {
  return vector.alias({static_cast<std::int64_t>(count)}, {1},
                      vector.offset() + static_cast<std::int64_t>(first));
}

/// left += right, on the stream of this thread.
void add_to(const Tensor& left, const Tensor& right) {
  kernels_of(left.device()).binary(BinaryOp::add, left.view(), left.view(), right.view());
}

/// By kernels, so that the host need not wait for the device.
void write(const Tensor& to, std::span<const float> values) {
  for (std::size_t begin = 0, end = 1; begin < values.size(); begin = end++) {
    while (end < values.size() && values[end] == values[begin]) ++end;
    kernels_of(to.device()).fill(part_of(to, begin, end - begin).view(), static_cast<double>(values[begin]));
  }
}

}  // namespace

ShardSum::ShardSum(Communicator& comm, int shards, std::size_t count, std::size_t notes, SumOptions options,
                   std::string label)
    : comm_(comm),
      shards_(shards),
      range_(shards_of_rank(shards, comm.size(), comm.rank())),
      count_(count),
      notes_(notes),
      options_(std::move(options)),
      label_(std::move(label)),
      result_(vector_of(comm, count, DType::kFloat32)),
      first_bad_(Tensor::zeros({2}, DType::kFloat64, comm.device())),
      said_(comm.device(), 2 * said_bytes()) {
  if (is_narrow()) narrow_ = vector_of(comm, count, options_.dtype);
  TRIREME_CHECK((options_.cuts.empty() && !options_.reduce) || notes == 0,
                "shard sum {}: the host reads no notes of a sum that is cut or made in another way", label_);
}

ShardSum::~ShardSum() {
  try {
    done_.wait();  // the communicator's own deadline bounds this
  } catch (const std::exception&) {
    // Whoever waits for results has been told, or is unwinding for a reason of its own.
  }
}

const Tensor& ShardSum::leaf() {
  if (!leaf_.defined()) {
    const bool has_spare = !is_narrow() && !spare_.empty();  // those are partial sums
    leaf_ = has_spare ? spare_.back() : vector_of(comm_, count_, DType::kFloat32);
    if (has_spare) spare_.pop_back();
  }
  return leaf_;
}

Tensor ShardSum::take_leaf() {
  if (!is_narrow()) return std::exchange(leaf_, Tensor());
  if (spare_.empty()) spare_.push_back(vector_of(comm_, count_, options_.dtype));
  const Tensor part = spare_.back();
  spare_.pop_back();
  const KernelTable& kernels = kernels_of(part.device());
  if (options_.scale != 1)
    kernels.unary(UnaryOp::mul_scalar, leaf_.view(), leaf_.view(), {static_cast<double>(options_.scale)});
  kernels.copy(part.view(), leaf_.view());
  return part;
}

void ShardSum::push(std::span<const float> notes) {
  TRIREME_CHECK(pushed_ < range_.size() && notes.size() <= notes_,
                "shard sum {}: pushed {} of {} shards, {} of {} notes", label_, pushed_, range_.size(),
                notes.size(), notes_);
  write(part_of(leaf(), count_ - notes.size(), notes.size()), notes);
  stack_.push_back(take_leaf());
  ++pushed_;
  if (options_.reduce) return;
  for (int merges = append_node(nodes_, {0, range_.first + pushed_ - 1}, shards_); merges > 0; --merges) {
    add_to(stack_[stack_.size() - 2], stack_.back());
    spare_.push_back(std::move(stack_.back()));
    stack_.pop_back();
  }
}

void ShardSum::launch() {
  TRIREME_CHECK(pushed_ == range_.size() && !launched_, "shard sum {}: launched after {} of {} shards",
                label_, pushed_, range_.size());
  launched_ = true;
  const Tensor& sum = is_narrow() ? narrow_ : result_;
  const float scale = is_narrow() ? 1 : options_.scale;
  if (options_.reduce) {
    options_.reduce(stack_, result_);
  } else if (options_.reduction == Reduction::kInvariant) {
    std::vector<const void*> partials;
    for (const Tensor& partial : stack_) partials.push_back(partial.raw());
    ordered_sum(comm_,
                {shards_, std::move(partials), sum.dtype(), count_, scale, sum.raw(), options_.cuts,
                 !options_.cuts.empty()},
                label_);
  } else {
    for (std::size_t i = 1; i < stack_.size(); ++i) add_to(stack_[0], stack_[i]);
    kernels_of(sum.device())
        .unary(UnaryOp::mul_scalar, sum.view(), stack_[0].view(), {static_cast<double>(scale)});
    comm_.all_reduce_fastest(memory_of(sum), sum.dtype(), label_);
  }
  const Slice own = own_slice();
  ticket_ = 1 - ticket_;
  done_ = comm_.run(
      [this, said = said(ticket_),
       halted = options_.halted.defined() ? options_.halted.view().as<std::int64_t>() : nullptr,
       result = part_of(result_, own.first, own.count).view(),
       sum = part_of(sum, own.first, own.count).view(), bad = first_bad_.view(), notes = result_notes()] {
        const KernelTable& kernels = kernels_of(result_.device());
        if (sum.data != result.data) kernels.copy(result, sum);
        kernels.first_not_finite(bad, result, halted);
        kernels.enqueue_copy_to_host(said, bad.data, 2 * sizeof(double));
        kernels.enqueue_copy_to_host(said + 2 * sizeof(double), notes, notes_ * sizeof(float));
      },
      label_);
  told_[ticket_] = done_;
}

Slice ShardSum::own_slice() const {
  if (options_.cuts.empty()) return {0, count_};
  const auto r = static_cast<std::size_t>(comm_.rank());
  return {options_.cuts[r], options_.cuts[r + 1] - options_.cuts[r]};
}

std::vector<std::span<std::byte>> ShardSum::result_slices() const {
  std::vector<std::span<std::byte>> slices;
  for (std::size_t r = 0; r + 1 < options_.cuts.size(); ++r)
    slices.push_back(memory_of(result_).subspan(options_.cuts[r] * sizeof(float),
                                                (options_.cuts[r + 1] - options_.cuts[r]) * sizeof(float)));
  return slices;
}

int ShardSum::finish() {
  TRIREME_CHECK(launched_, "shard sum {}: finished before it was launched", label_);
  done_.order();
  for (Tensor& partial : stack_) spare_.push_back(std::move(partial));
  stack_.clear();
  nodes_.clear();
  pushed_ = 0;
  launched_ = false;
  return ticket_;
}

ShardSum::Bad ShardSum::first_bad(int ticket) const {
  told_[ticket].wait();
  double bad[2];
  std::memcpy(bad, said(ticket), sizeof bad);
  const auto at = static_cast<std::size_t>(bad[0]);
  const Slice own = own_slice();
  return {at < own.count ? own.first + at : count_, bad[1]};
}

std::span<const float> ShardSum::notes(int ticket) const {
  told_[ticket].wait();
  return {reinterpret_cast<const float*>(said(ticket) + 2 * sizeof(double)), notes_};
}

}  // namespace trireme
