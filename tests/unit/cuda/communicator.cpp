// Tests the communicator of an emulated GPU: groups, events, mismatches and failures. collectives.cpp tests
// the results of collectives, also on a real GPU.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "core/ops/ops.h"
#include "distributed/comm/device_communicator.h"
#include "distributed/comm/local.h"
#include "kernels/cuda/memory.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/rank_test.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;

/// Runs body(comm) on each of `ranks` threads.
void on_gpus(int ranks, const std::function<void(Communicator& comm)>& body,
             std::chrono::milliseconds patience = 20s) {
  const test::Watchdog watchdog("cuda communicator", 60s);
  run_local_ranks(ranks, 20s, [&](Communicator& host) { body(*make_device_communicator(host, patience)); });
}

Tensor filled(std::int64_t count, double value) {
  return Tensor::full({count}, value, DType::kFloat32, Device{DeviceType::kCuda, 0});
}

TEST(CudaCommunicator, SplitsIntoGroups) {
  on_gpus(3, [](Communicator& comm) {
    const auto group = comm.split(comm.rank() == 1 ? -1 : 4);
    EXPECT_EQ(group == nullptr, comm.rank() == 1);
    if (!group) return;
    EXPECT_EQ(group->rank(), comm.rank() / 2);
    const Tensor all = filled(4, comm.rank());
    std::vector<Bytes> slices{memory_of(all).subspan(0, 8), memory_of(all).subspan(8, 8)};
    group->all_gather(slices, "slices").wait();
    EXPECT_EQ(all.to_vector<float>(), (std::vector<float>{0, 0, 2, 2}));
  });
}

TEST(CudaCommunicator, ALoneCallIsDoneAtTheMarkBehindIt) {
  on_gpus(1, [](Communicator& comm) {
    const Tensor x = filled(1, 1);
    const Event first = comm.run([&] { add_(x, 1.0); }, "first");
    comm.mark();
    const Event second = comm.run([&] { add_(x, 1.0); }, "second");
    for (int i = 0; i < 50; ++i) add_(x, 1.0);
    const std::size_t given = cuda::emulator::pending();
    first.wait();
    EXPECT_TRUE(first.done());
    EXPECT_GE(cuda::emulator::pending(), 50u) << "of " << given;
    EXPECT_FALSE(second.done());
    second.wait();
    EXPECT_TRUE(second.done());
    EXPECT_EQ(cuda::emulator::pending(), 0u) << "there was no mark";
    EXPECT_EQ(x.to_vector<float>(), (std::vector<float>{53}));
  });
}

TEST(CudaCommunicator, WhatOthersKeepFromItsEndIsEnded) {
  std::atomic<bool> over = false;
  const std::string error = test::error_of([&] {
    on_gpus(
        2,
        [&](Communicator& comm) {
          const cuda::StreamScope own(cuda::make_stream());
          const Tensor x = filled(1, comm.rank());
          if (comm.rank() == 1)
            cuda::emulator::enqueue_when(
                cuda::stream(), [&] { return over.load(); }, [] {});
          const Event sum = comm.all_reduce_fastest(memory_of(x), DType::kFloat32, "sum");
          if (comm.rank() == 1) {
            while (!over) std::this_thread::sleep_for(1ms);
            return;
          }
          sum.order();
          x.item();  // waits for the GPU without a deadline
          over = true;
          EXPECT_THROW(sum.order(), Error) << "its numbers are none";
          sum.wait();
        },
        300ms);
  });
  EXPECT_NE(error.find("\"sum\" on cuda:0: the GPU did not finish within the patience of 0.3 s"),
            std::string::npos)
      << error;
}

TEST(CudaCommunicator, ACallIsDoneWhenTheGpuIs) {
  on_gpus(2, [](Communicator& comm) {
    std::atomic<bool> ran = false;
    const Event event = comm.run(
        [&] {
          // Enqueue much more work than the emulator does in one call of done().
          for (int i = 0; i < 50; ++i) add_(filled(1, i), 1.0);
          ran = true;
        },
        "work");
    while (!ran) std::this_thread::yield();
    std::this_thread::sleep_for(50ms);  // the CPU's part is done after this time
    EXPECT_FALSE(event.done());
    event.wait();
    EXPECT_TRUE(event.done());
  });
}

TEST(CudaCommunicator, SizesThatDifferAreFoundBeforeTheGpuWaits) {
  const std::string error = test::error_of([] {
    on_gpus(
        2,
        [](Communicator& comm) {
          const Tensor own = filled(4, 0), other = filled(comm.rank() == 0 ? 4 : 5, 0);
          const Bytes slices[] = {memory_of(comm.rank() == 0 ? own : other),
                                  memory_of(comm.rank() == 0 ? other : own)};
          comm.all_gather(slices, "slices").wait();
        },
        1s);
  });
  EXPECT_NE(error.find("slices (slices of 16, 16 bytes)"), std::string::npos) << error;
  EXPECT_NE(error.find("slices (slices of 20, 16 bytes)"), std::string::npos) << error;
}

TEST(CudaCommunicator, AMismatchIsFoundBeforeTheGpuWaits) {
  const std::string error = test::error_of([] {
    on_gpus(2, [](Communicator& comm) {
      const Tensor data = Tensor::zeros({comm.rank() == 0 ? 8 : 9}, DType::kFloat32, comm.device());
      comm.broadcast(memory_of(data), 0, "weights").wait();
    });
  });
  EXPECT_NE(error.find("weights (32 bytes of rank 0)"), std::string::npos) << error;
  EXPECT_NE(error.find("weights (36 bytes of rank 0)"), std::string::npos) << error;
}

TEST(CudaCommunicator, AFailingRankEndsTheOthers) {
  const std::string error = test::error_of([] {
    on_gpus(3, [](Communicator& comm) {
      if (comm.rank() == 1) fail(ExitCode::kData, "no data on rank 1");
      const Tensor data = Tensor::zeros({8}, DType::kFloat32, comm.device());
      comm.broadcast(memory_of(data), 0, "weights").wait();
    });
  });
  EXPECT_NE(error.find("no data on rank 1"), std::string::npos) << error;
}

}  // namespace
}  // namespace trireme
