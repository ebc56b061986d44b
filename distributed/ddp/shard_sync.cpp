#include "distributed/ddp/shard_sync.h"

#include "distributed/comm/ordered_reduce.h"

namespace trireme {

namespace {

class ShardSync final : public nn::BatchSync {
 public:
  explicit ShardSync(Communicator& comm) : comm_(comm.split(0)) {}
  Tensor sum(const Tensor& part) override {
    const Tensor in = part.row_major(), out = Tensor::empty_like(in);
    ordered_all_reduce(*comm_, comm_->size(), {in.raw()}, in.dtype(), static_cast<std::size_t>(in.numel()), 1,
                       out.raw(), "batch statistics")
        .wait();
    return out;
  }

 private:
  const std::unique_ptr<Communicator> comm_;
};

}  // namespace

std::unique_ptr<nn::BatchSync> make_shard_sync(Communicator& comm) {
  return std::make_unique<ShardSync>(comm);
}

}  // namespace trireme
