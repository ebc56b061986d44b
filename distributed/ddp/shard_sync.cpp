#include "distributed/ddp/shard_sync.h"

#include <exception>

#include "distributed/comm/ordered_reduce.h"

namespace trireme {

namespace {

class ShardSync final : public nn::BatchSync {
 public:
  explicit ShardSync(Communicator& comm)
      : comm_(comm.host().split(0)), exceptions_(std::uncaught_exceptions()) {}

  /// Aborts during unwinding, because other ranks may wait in sum() for this rank.
  ~ShardSync() override {
    if (std::uncaught_exceptions() > exceptions_) comm_->abort("its step failed");
  }

  // Also sums on the CPU for a GPU: these are few numbers, and NCCL needs one order over two communicators.
  Tensor sum(const Tensor& part) override {
    const Tensor in = to_device(part, kCpu).row_major(), out = Tensor::empty_like(in);
    ordered_all_reduce(*comm_, comm_->size(), {in.raw()}, in.dtype(), static_cast<std::size_t>(in.numel()), 1,
                       out.raw(), "batch statistics")
        .wait();
    return to_device(out, part.device());
  }

 private:
  const std::unique_ptr<Communicator> comm_;
  const int exceptions_;
};

}  // namespace

std::unique_ptr<nn::BatchSync> make_shard_sync(Communicator& comm) {
  return std::make_unique<ShardSync>(comm);
}

}  // namespace trireme
