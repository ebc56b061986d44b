// Tests that packing is turned on automatically if the link is slow and ranks wait for it.
#include "distributed/train/link_packing.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "distributed/comm/local.h"

namespace trireme {
namespace {

using namespace std::chrono_literals;

struct Case {
  std::string wish = "auto";
  double bytes_per_second = 100e6;
  std::chrono::nanoseconds waited = 4ms;
  bool one_host = false;
  int steps = 8;
};

/// Returns true if messages are packed after steps of 10 ms each.
bool packs(const Case& c) {
  std::atomic<int> packed = 0;
  run_local_ranks(
      2, 30s,
      [&](Communicator& comm) {
        auto& host = dynamic_cast<HostCommunicator&>(comm);
        LinkPacking packing(host, c.wish, {1e-4, c.bytes_per_second});
        for (int step = 0; step < c.steps; ++step) packing.observe(10ms, step < 2 ? 0ms : c.waited);
        std::vector<float> ones(100'000, 1.0f);
        comm.broadcast(std::as_writable_bytes(std::span(ones)), 0, "ones").wait();
        if (comm.rank() == 0 && host.traffic().sent < host.traffic().plain) ++packed;
        if (comm.rank() == 0) {
          EXPECT_EQ(packing.text().empty(), packed == 0) << packing.text();
        }
      },
      [&](int rank) { return c.one_host ? 0 : rank; });
  return packed > 0;
}

TEST(LinkPacking, BeginsWhereRanksWaitForASlowLink) {
  EXPECT_TRUE(packs({}));
  EXPECT_TRUE(packs({.waited = 2600us}));
  EXPECT_TRUE(packs({.bytes_per_second = 290e6}));
  EXPECT_FALSE(packs({.bytes_per_second = 310e6})) << "the link is fast";
  EXPECT_FALSE(packs({.bytes_per_second = 0})) << "it was not measured";
  EXPECT_FALSE(packs({.waited = 2400us})) << "work hides the sums";
  EXPECT_FALSE(packs({.one_host = true}));
  EXPECT_FALSE(packs({.steps = 7})) << "that is not known yet";
}

TEST(LinkPacking, DoesWhatItIsTold) {
  EXPECT_TRUE(packs({.wish = "on", .bytes_per_second = 1e9, .waited = 0ms, .steps = 0}));
  EXPECT_FALSE(packs({.wish = "off"}));
  EXPECT_FALSE(packs({.wish = "on", .one_host = true}));
}

}  // namespace
}  // namespace trireme
