#include "distributed/ddp/shard_sum.h"

#include "core/base/finite.h"

namespace trireme {

ShardSum::ShardSum(Communicator& comm, int shards, std::size_t count, Reduction reduction, std::string label)
    : comm_(comm),
      shards_(shards),
      range_(shards_of_rank(shards, comm.size(), comm.rank())),
      count_(count),
      reduction_(reduction),
      label_(std::move(label)),
      result_(Tensor::zeros({static_cast<std::int64_t>(count)})) {}

ShardSum::~ShardSum() {
  if (!launched_) return;
  try {
    done_.wait();  // the communicator's own deadline bounds this
  } catch (const std::exception&) {
    // Whoever waits for results has been told, or is unwinding for a reason of its own.
  }
}

const Tensor& ShardSum::leaf() {
  if (!leaf_.defined()) {
    if (spare_.empty()) spare_.push_back(Tensor::empty({static_cast<std::int64_t>(count_)}));
    leaf_ = spare_.back();
    spare_.pop_back();
  }
  return leaf_;
}

void ShardSum::push() {
  TRIREME_CHECK(pushed_ < range_.size() && leaf_.defined(), "shard sum {}: pushed {} of {} shards", label_,
                pushed_, range_.size());
  stack_.push_back({{0, range_.first + pushed_++}, std::move(leaf_)});
  leaf_ = Tensor();
  merge_top();
}

void ShardSum::merge_top() {
  for (;;) {
    Partial& top = stack_.back();
    const auto [level, index] = top.node;
    if (index == 0 && (1 << level) >= shards_) return;  // the root
    if (index % 2 == 0) {
      // The right neighbour may be nothing but padding, which changes no bit: the node stands for its parent
      // too.
      if (static_cast<std::int64_t>(index + 1) << level < shards_) return;
      top.node = {level + 1, index / 2};
      continue;
    }
    if (stack_.size() < 2 || stack_[stack_.size() - 2].node != TreeNode{level, index - 1}) return;
    Partial& left = stack_[stack_.size() - 2];
    float* sum = left.sum.data<float>();
    add_in_order(sum, sum, top.sum.data<float>(), count_);
    left.node = {level + 1, index / 2};
    spare_.push_back(std::move(top.sum));
    stack_.pop_back();
  }
}

void ShardSum::launch(float scale) {
  TRIREME_CHECK(pushed_ == range_.size() && !launched_, "shard sum {}: launched after {} of {} shards",
                label_, pushed_, range_.size());
  launched_ = true;
  float* out = result_.data<float>();
  if (reduction_ == Reduction::kInvariant) {
    std::vector<const float*> partials;
    for (const Partial& partial : stack_) partials.push_back(partial.sum.data<float>());
    ordered_all_reduce(comm_, shards_, std::move(partials), count_, scale, out, label_);
  } else {
    float* sum = stack_[0].sum.data<float>();
    for (std::size_t i = 1; i < stack_.size(); ++i)
      add_in_order(sum, sum, stack_[i].sum.data<float>(), count_);
    for (std::size_t i = 0; i < count_; ++i) out[i] = sum[i] * scale;
    comm_.all_reduce_fastest({out, count_}, label_);
  }
  done_ = comm_.run([this, out] { first_bad_ = first_not_finite(out, count_, DType::kFloat32); }, label_);
}

std::size_t ShardSum::finish() {
  TRIREME_CHECK(launched_, "shard sum {}: finished before it was launched", label_);
  done_.wait();
  for (Partial& partial : stack_) spare_.push_back(std::move(partial.sum));
  stack_.clear();
  pushed_ = 0;
  launched_ = false;
  return first_bad_;
}

}  // namespace trireme
