// Tests sums and gathers between GPUs of several hosts, through an emulated NCCL.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "core/ops/ops.h"
#include "distributed/comm/device_communicator.h"
#include "distributed/comm/local.h"
#include "distributed/comm/ordered_reduce.h"
#include "kernels/cuda/memory.h"
#include "tests/support/rank_test.h"
#include "tests/support/shard_sums.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;
using namespace test;

struct Placement {
  const char* name;
  LocalHosts host_of;
};

const std::array<Placement, 5> kPlacements = {{
    {"one host", [](int) { return 0; }},
    {"a host each", [](int rank) { return rank; }},
    {"two to a host", [](int rank) { return rank / 2; }},
    {"three to a host", [](int rank) { return rank / 3; }},
    {"in turn on two hosts", [](int rank) { return rank % 2; }},
}};

void on_gpus(int ranks, const Placement& placement, const std::function<void(Communicator&)>& body) {
  const Watchdog watchdog("cuda routes", 120s);
  SCOPED_TRACE(fmt::format("{} ranks, {}", ranks, placement.name));
  run_local_ranks(
      ranks, 20s, [&](Communicator& host) { body(*make_device_communicator(host, 20s)); }, placement.host_of);
  cuda::release_cached_memory();  // the emulator is slow with many blocks: it protects each at every kernel
}

Tensor on_device(std::span<const float> values, const Communicator& comm) {
  const std::vector<float> copy(values.begin(), values.end());
  return to_device(Tensor::from(copy, {static_cast<std::int64_t>(copy.size())}), comm.device());
}

/// Returns cuts into slices of different sizes, one of which is empty.
std::vector<std::size_t> some_cuts(std::size_t count, int ranks) {
  std::vector<std::size_t> cuts{0};
  for (int rank = 1; rank < ranks; ++rank)
    cuts.push_back(rank == 2 ? cuts.back()
                             : count * static_cast<std::size_t>(rank * rank) /
                                   static_cast<std::size_t>(ranks * ranks));
  cuts.push_back(count);
  return cuts;
}

void expect_sum(Communicator& comm, const PaddedTree& tree, int shards, std::vector<std::size_t> cuts,
                bool own_slice_only) {
  const auto own = maximal_subtrees(shards, shards_of_rank(shards, comm.size(), comm.rank()));
  std::vector<Tensor> partials;
  std::vector<const void*> given;
  for (const TreeNode node : own) {
    partials.push_back(on_device(
        tree.levels[static_cast<std::size_t>(node.level)][static_cast<std::size_t>(node.index)], comm));
    given.push_back(memory_of(partials.back()).data());
  }
  const Floats root = tree.root(0.5f);
  // The sum is written into one of the partial sums.
  const OrderedSum sum{
      shards, given, DType::kFloat32, root.size(), 0.5f, memory_of(partials[0]).data(), cuts, own_slice_only};
  ordered_sum(comm, sum, "bucket").wait();
  const Floats got = partials[0].to_vector<float>();
  Slice slice{0, root.size()};
  if (own_slice_only) slice = slice_of_rank(sum, comm.size(), comm.rank());
  ASSERT_TRUE(same_bits(std::span(got).subspan(slice.first, slice.count),
                        std::span(root).subspan(slice.first, slice.count)))
      << shards << " shards, cuts " << !cuts.empty() << ", own slice only " << own_slice_only;
}

TEST(CudaRoutes, SumsAreThoseOfTheTreeWhereverRanksAre) {
  for (const int shards : {7, 8, 13}) {
    const PaddedTree tree(shards, 203);
    for (const int ranks : {2, 3, 5, 7})
      for (const Placement& placement : kPlacements)
        on_gpus(ranks, placement, [&](Communicator& comm) {
          expect_sum(comm, tree, shards, {}, false);
          expect_sum(comm, tree, shards, some_cuts(203, comm.size()), true);
          expect_sum(comm, tree, shards, some_cuts(203, comm.size()), false);
        });
  }
}

TEST(CudaRoutes, SumsOfNothingAndIn16Bits) {
  constexpr int kShards = 8;
  const PaddedTree nothing(kShards, 0);
  Floats alone;
  for (const int ranks : {1, 3, 4, 6})
    for (const Placement& placement : kPlacements)
      on_gpus(ranks, placement, [&](Communicator& comm) {
        expect_sum(comm, nothing, kShards, {}, false);
        // Round in each node, as ranks do before they send.
        std::function<Tensor(TreeNode)> sum_of = [&](TreeNode node) {
          if (node.level > 0)
            return add(sum_of({node.level - 1, 2 * node.index}),
                       sum_of({node.level - 1, 2 * node.index + 1}));
          return to_dtype(on_device(Floats(40, 1.0f + static_cast<float>(node.index) / 100), comm),
                          DType::kBFloat16);
        };
        std::vector<Tensor> partials;
        std::vector<const void*> given;
        for (const TreeNode node :
             maximal_subtrees(kShards, shards_of_rank(kShards, comm.size(), comm.rank())))
          given.push_back(memory_of(partials.emplace_back(sum_of(node))).data());
        ordered_all_reduce(comm, kShards, given, DType::kBFloat16, 40, 1, memory_of(partials[0]).data(),
                           "bucket")
            .wait();
        const Floats got = to_dtype(partials[0], DType::kFloat32).to_vector<float>();
        if (comm.size() == 1) alone = got;
        ASSERT_TRUE(same_bits(got, alone));
      });
}

TEST(CudaRoutes, GathersFillAllSlicesWhereverRanksAre) {
  for (const int ranks : {2, 4, 5, 7})
    for (const Placement& placement : kPlacements)
      on_gpus(ranks, placement, [](Communicator& comm) {
        std::vector<Tensor> all;
        std::vector<Bytes> slices;
        for (int r = 0; r < comm.size(); ++r) {
          // The slice of rank 1 is empty.
          const Floats values(r == 1 ? 0 : static_cast<std::size_t>(3 + r),
                              r == comm.rank() ? static_cast<float>(r) : -1.0f);
          slices.push_back(memory_of(all.emplace_back(on_device(values, comm))));
        }
        comm.all_gather(slices, "slices").wait();
        for (std::size_t r = 0; r < all.size(); ++r)
          ASSERT_EQ(all[r].to_vector<float>(), Floats(r == 1 ? 0 : 3 + r, static_cast<float>(r)));
      });
}

/// Counts the bytes that go from host to host.
class Counted final : public DeviceTransport {
 public:
  Counted(std::shared_ptr<DeviceTransport> real, std::vector<int> hosts, int rank,
          std::atomic<std::size_t>& bytes)
      : real_(std::move(real)), hosts_(std::move(hosts)), rank_(rank), bytes_(bytes) {}
  std::string_view backend() const override { return real_->backend(); }
  void exchange(std::span<const Send> sends, std::span<const Recv> recvs, cuda::Stream stream) override {
    for (const Send& send : sends)
      if (hosts_[static_cast<std::size_t>(send.to)] != hosts_[static_cast<std::size_t>(rank_)])
        bytes_ += send.data.size();
    real_->exchange(sends, recvs, stream);
  }
  void broadcast(Bytes data, int root, cuda::Stream stream) override { real_->broadcast(data, root, stream); }
  void all_reduce(Bytes data, DType dtype, cuda::Stream stream) override {
    real_->all_reduce(data, dtype, stream);
  }
  void check() override { real_->check(); }
  void abort() noexcept override { real_->abort(); }

 private:
  const std::shared_ptr<DeviceTransport> real_;
  const std::vector<int> hosts_;
  const int rank_;
  std::atomic<std::size_t>& bytes_;
};

TEST(CudaRoutes, AVectorCrossesOnceForEachOtherHost) {
  constexpr int kHosts = 3, kRanks = 6, kShards = 12;
  constexpr std::size_t kCount = 600;
  std::atomic<std::size_t> bytes = 0;
  const Watchdog watchdog("cuda routes", 60s);
  run_local_ranks(
      kRanks, 20s,
      [&](Communicator& host) {
        DeviceCommunicator comm(
            host, std::make_shared<Counted>(make_nccl_transport(host, 20s), host.hosts(), host.rank(), bytes),
            20s);
        // Each host has four shards, which are one node of the tree.
        expect_sum(comm, PaddedTree(kShards, kCount), kShards, {}, false);
      },
      [](int rank) { return rank / (kRanks / kHosts); });
  // Every other host sends each element to its owner and receives the sum.
  EXPECT_EQ(bytes, 2 * (kHosts - 1) * kCount * sizeof(float));
}

TEST(CudaRoutes, GroupsThatSpanHostsHaveTheirOwn) {
  const PaddedTree tree(7, 203);
  on_gpus(7, kPlacements[3], [&](Communicator& comm) {
    const auto group = comm.split(comm.rank() % 2);
    expect_sum(*group, tree, 7, {}, false);
  });
}

TEST(CudaRoutes, SumsThatDifferAreFoundBeforeTheGpuWaits) {
  const auto error_with = [](const std::function<void(OrderedSum&)>& change) {
    return error_of([&] {
      on_gpus(2, kPlacements[1], [&](Communicator& comm) {
        const Tensor data = on_device(Floats(9), comm);
        OrderedSum sum{2, {memory_of(data).data()}, DType::kFloat32, 8, 1, memory_of(data).data(), {}, false};
        if (comm.rank() == 1) change(sum);
        ordered_sum(comm, sum, "bucket 4").wait();
        comm.barrier("after").wait();
      });
    });
  };
  const std::string error = error_with([](OrderedSum& sum) { sum.count = 9; });
  EXPECT_NE(error.find("bucket 4 (sum of 8 float32 over 2 shards"), std::string::npos) << error;
  EXPECT_NE(error.find("bucket 4 (sum of 9 float32 over 2 shards"), std::string::npos) << error;
  for (const auto& change : std::vector<std::function<void(OrderedSum&)>>{
           [](OrderedSum& sum) { sum.own_slice_only = true; }, [](OrderedSum& sum) { sum.scale = 2; },
           [](OrderedSum& sum) {
             sum.cuts = {0, 4, 8};
           },
           [](OrderedSum& sum) { sum.dtype = DType::kBFloat16; }})
    EXPECT_NE(error_with(change).find("bucket 4 (sum of"), std::string::npos);
}

}  // namespace
}  // namespace trireme
