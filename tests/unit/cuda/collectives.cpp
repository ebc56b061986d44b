// Tests the collectives between GPUs. By default ranks are threads on the emulated GPU. tests/gpu/check.sh
// runs the same tests in processes that share a real GPU, with the real NCCL.
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "core/ops/ops.h"
#include "distributed/comm/device_communicator.h"
#include "distributed/comm/local.h"
#include "distributed/comm/mpi.h"
#include "distributed/comm/ordered_reduce.h"
#include "distributed/rendezvous/world.h"
#include "tests/support/rank_test.h"
#include "tests/support/shard_sums.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;
using namespace test;

class CudaCollectives : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!over_mpi()) return;
    const World world = detect_world(process_environment());
    take_gpu(world.rank, world.local_rank, world.local_size, true);
    host_ = make_mpi_communicator(60s);
    process_ = make_device_communicator(*host_, 60s);
  }
  static void TearDownTestSuite() {
    process_.reset();
    host_.reset();
  }

  /// Calls body(comm) on every rank of this world over MPI, or of worlds of 1, 2 and 3 threads.
  void on_gpus(const std::function<void(Communicator& comm)>& body) {
    const Watchdog watchdog("cuda collectives", 100s);
    if (process_) return body(*process_);
    for (const int ranks : {1, 2, 3})
      run_local_ranks(ranks, 20s, [&](Communicator& host) { body(*make_device_communicator(host, 20s)); });
  }

 private:
  static inline std::unique_ptr<Communicator> host_, process_;  ///< communicators over MPI; null: threads
};

Tensor filled(std::int64_t count, double value, DType dtype = DType::kFloat32) {
  return Tensor::full({count}, value, dtype, Device{DeviceType::kCuda, 0});
}

TEST_F(CudaCollectives, AllToAllMovesEachSliceAndTheOwnOne) {
  on_gpus([](Communicator& comm) {
    std::vector<Tensor> from, to;
    std::vector<ConstBytes> sends;
    std::vector<Bytes> recvs;
    for (int r = 0; r < comm.size(); ++r) {
      from.push_back(filled(3 + r, 10 * comm.rank() + r));
      to.push_back(filled(3 + comm.rank(), -1));
      sends.push_back(memory_of(from.back()));
      recvs.push_back(memory_of(to.back()));
    }
    comm.all_to_all(sends, recvs, "parts").wait();
    for (int r = 0; r < comm.size(); ++r) {
      const auto expected = static_cast<float>(10 * r + comm.rank());
      EXPECT_EQ(to[static_cast<std::size_t>(r)].to_vector<float>(),
                std::vector<float>(static_cast<std::size_t>(3 + comm.rank()), expected));
    }
  });
}

TEST_F(CudaCollectives, AllGatherFillsTheOthersSlices) {
  on_gpus([](Communicator& comm) {
    const Tensor all = filled(2 * comm.size(), comm.rank());
    std::vector<Bytes> slices;
    std::vector<float> expected;
    for (int r = 0; r < comm.size(); ++r) {
      slices.push_back(memory_of(all).subspan(static_cast<std::size_t>(r) * 8, 8));
      expected.insert(expected.end(), 2, static_cast<float>(r));
    }
    comm.all_gather(slices, "slices").wait();
    EXPECT_EQ(all.to_vector<float>(), expected);
  });
}

TEST_F(CudaCollectives, BroadcastGivesAllRanksTheRootsData) {
  on_gpus([](Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
      const Tensor data = filled(1000, 7 + comm.rank());
      comm.broadcast(memory_of(data), root, "weights").wait();
      EXPECT_EQ(data.to_vector<float>(), std::vector<float>(1000, static_cast<float>(7 + root)));
    }
  });
}

TEST_F(CudaCollectives, AllReduceFastestSumsExactlyWhatIsExact) {
  on_gpus([](Communicator& comm) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      const Tensor data = filled(4099, 1 + comm.rank(), dtype);
      comm.all_reduce_fastest(memory_of(data), dtype, "sum").wait();
      const auto expected = comm.size() * (comm.size() + 1) / 2;
      EXPECT_EQ(data.to_vector<double>(), std::vector<double>(4099, expected)) << name_of(dtype);
    }
  });
}

/// Returns true if all elements have the same bits. NaN equals any NaN, because a GPU gives it other bits.
bool same_numbers(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i]) &&
        !(std::isnan(a[i]) && std::isnan(b[i])))
      return false;
  return true;
}

TEST_F(CudaCollectives, SumsHaveTheBitsOfTheTreeOnTheCpu) {
  constexpr int kShards = 5;
  for (const std::size_t count : {1u, 203u, 20'001u}) {
    const PaddedTree tree(kShards, count);
    on_gpus([&](Communicator& comm) {
      std::vector<Tensor> partials;
      std::vector<const void*> given;
      for (const TreeNode node :
           maximal_subtrees(kShards, shards_of_rank(kShards, comm.size(), comm.rank()))) {
        const Floats& sum =
            tree.levels[static_cast<std::size_t>(node.level)][static_cast<std::size_t>(node.index)];
        partials.push_back(to_device(Tensor::from(sum, {static_cast<std::int64_t>(count)}), comm.device()));
        given.push_back(memory_of(partials.back()).data());
      }
      const Tensor out = filled(static_cast<std::int64_t>(count), 42);
      ordered_all_reduce(comm, kShards, given, DType::kFloat32, count, 0.5f, memory_of(out).data(), "bucket")
          .wait();
      EXPECT_TRUE(same_numbers(out.to_vector<float>(), tree.root(0.5f))) << count << " numbers";
    });
  }
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
