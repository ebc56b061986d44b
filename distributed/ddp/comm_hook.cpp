#include "distributed/ddp/comm_hook.h"

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "kernels/table.h"

namespace trireme {

void GradientBucket::run(std::function<void()> fn) {
  comm_.run(
      [fn = std::move(fn)] {
        // A GPU communicator of one rank calls this at once, in the middle of a shard's backward.
        const NoGrad off;
        const amp::Autocast plain(false);
        fn();
      },
      label_);
}

void GradientBucket::sum(std::vector<Tensor> parts, const Tensor& out, double scale) {
  const ShardRange own = range();
  TRIREME_CHECK(std::ssize(parts) == own.size(), "{}: a sum needs a vector for each of {} shards, got {}",
                label_, own.size(), parts.size());
  for (const Tensor& part : parts)
    TRIREME_CHECK(part.numel() == out.numel() && part.dtype() == out.dtype() && part.is_contiguous(),
                  "{}: a sum of {} into {} of {} elements; dtypes and sizes must agree, rows lie dense",
                  label_, part.shape().to_string(), name_of(out.dtype()), out.numel());
  struct Add {
    View to, from;
  };
  std::vector<Add> adds;
  std::vector<TreeNode> nodes;
  std::vector<std::size_t> left;  // for each node, the index of the part that holds its sum
  for (int shard = own.first; shard < own.last; ++shard) {
    left.push_back(static_cast<std::size_t>(shard - own.first));
    for (int merges = append_node(nodes, {0, shard}, shards_); merges > 0; --merges) {
      const std::size_t right = left.back();
      left.pop_back();
      adds.push_back({parts[left.back()].view(), parts[right].view()});
    }
  }
  const KernelTable& kernels = kernels_of(comm_.device());
  comm_.run(
      [&kernels, adds = std::move(adds)] {
        for (const Add& add : adds) kernels.binary(BinaryOp::add, add.to, add.to, add.from);
      },
      label_);
  OrderedSum sum{.shards = shards_,
                 .dtype = out.dtype(),
                 .count = static_cast<std::size_t>(out.numel()),
                 .scale = static_cast<float>(scale),
                 .out = out.raw()};
  for (const std::size_t part : left) sum.partials.push_back(parts[part].raw());
  ordered_sum(comm_, sum, label_);
  comm_.run([parts, out] {}, label_);  // keeps them alive until the sum is done
}

std::shared_ptr<CommHook> make_comm_hook(std::function<void(GradientBucket&)> reduce) {
  class Function final : public CommHook {
   public:
    explicit Function(std::function<void(GradientBucket&)> fn) : fn_(std::move(fn)) {}
    void reduce(GradientBucket& bucket) override { fn_(bucket); }

   private:
    std::function<void(GradientBucket&)> fn_;
  };
  return std::make_shared<Function>(std::move(reduce));
}

}  // namespace trireme
