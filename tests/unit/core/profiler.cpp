// Tests what the profiler reports about ops whose number, names and memory are known.
#include "core/profiler/profile.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "core/optim/optimizer.h"
#include "core/profiler/timed_kernels.h"
#include "tests/support/checkpoint.h"

namespace trireme {
namespace {

using profiler::Profile;
using profiler::ProfileRow;

/// Returns the row of an op, or a row with 0 calls if there is none.
ProfileRow row_of(const Profile& profile, const std::string& op, bool backward = false,
                  const std::string& shapes = "") {
  for (const ProfileRow& row : profile.rows())
    if (row.op == op && row.backward == backward && row.shapes == shapes) return row;
  return {};
}

TEST(Profiler, CountsOpsForwardAndBackwardByName) {
  const Tensor w = Tensor::ones({8, 4}).set_requires_grad(true), x = Tensor::ones({16, 4});
  Profile profile;
  for (int i = 0; i < 3; ++i) {
    const Tensor y = relu(matmul(x, transpose(w, 0, 1)));
    mean(y).backward();
    w.set_grad({});
  }
  profile.stop();
  for (const char* op : {"matmul", "relu", "mean"}) {
    EXPECT_EQ(row_of(profile, op).calls, 3) << op;
    EXPECT_EQ(row_of(profile, op, true).calls, 3) << op;
    EXPECT_GT(row_of(profile, op).self_ns, 0) << op;
  }
  EXPECT_GT(row_of(profile, "matmul", true).self_ns, 0);
  EXPECT_EQ(row_of(profile, "leaf", true).calls, 3);
  EXPECT_EQ(row_of(profile, "transpose").calls, 0) << "a view runs no kernel";
  EXPECT_EQ(row_of(profile, "relu_backward").calls, 0) << "it is part of relu's backward";
}

TEST(Profiler, WithoutAGraphKernelsStandForThemselves) {
  const NoGrad off;
  const Tensor x = Tensor::ones({4, 4});
  Profile profile;
  const Tensor y = relu(x), view = transpose(y, 0, 1), positive = gt(y, 0), z = matmul(y, x);
  profile.stop();
  EXPECT_EQ(row_of(profile, "relu").calls, 1);
  EXPECT_EQ(row_of(profile, "gt").calls, 1);
  EXPECT_EQ(row_of(profile, "matmul").calls, 1);
  EXPECT_EQ(row_of(profile, "fill").calls, 1) << "the 0 of gt";
  EXPECT_EQ(profile.rows().size(), 4u) << profile.table();
}

TEST(Profiler, OptimizersAreListed) {
  const Tensor w = Tensor::ones({10}).set_requires_grad(true);
  optim::SGD sgd({{{"w", w}}}, {.lr = 1});
  Profile profile;
  sum(w).backward();
  sgd.step();
  EXPECT_EQ(row_of(profile, "sgd").calls, 1);
}

TEST(Profiler, MemoryIsThatOfTheOp) {
  const Tensor x = Tensor::ones({1024});
  Profile profile;
  { const Tensor a = exp(x), b = log(a); }
  const Tensor c = sin(x);
  profile.stop();
  EXPECT_EQ(row_of(profile, "exp").allocated_bytes, 4096);
  EXPECT_EQ(row_of(profile, "exp").peak_bytes, 4096);
  EXPECT_EQ(row_of(profile, "log").allocated_bytes, 4096);
  EXPECT_EQ(row_of(profile, "log").peak_bytes, 8192);
  EXPECT_EQ(row_of(profile, "sin").peak_bytes, 4096) << "what was freed before does not count";
  EXPECT_EQ(profile.peak_bytes(), 8192);
}

TEST(Profiler, ShapesMakeRowsOfTheirOwn) {
  const Tensor a = Tensor::ones({2, 3}), b = Tensor::ones({3, 4}), c = Tensor::ones({4, 2});
  Profile profile({.shapes = true});
  const Tensor d = matmul(matmul(a, b), c), e = matmul(a, b);
  EXPECT_EQ(row_of(profile, "matmul", false, "(2, 3) (3, 4)").calls, 2);
  EXPECT_EQ(row_of(profile, "matmul", false, "(2, 4) (4, 2)").calls, 1);
}

TEST(Profiler, TimesAddUpToTheWall) {
  const Tensor x = Tensor::ones({200, 200});
  Profile profile;
  Tensor y = x;
  for (int i = 0; i < 20; ++i) y = matmul(y, x);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  profile.stop();
  std::int64_t kernels = 0;
  for (const ProfileRow& row : profile.rows()) kernels += row.self_ns;
  EXPECT_EQ(kernels + profile.outside_ns(), profile.wall_ns());
  EXPECT_GE(profile.outside_ns(), 20'000'000) << "asleep, no kernel ran";
  const std::int64_t wall = profile.wall_ns();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(profile.wall_ns(), wall) << "it ended";
}

TEST(Profiler, SeesItsOwnThreadAndTimeOnly) {
  const Tensor x = Tensor::ones({4});
  const Tensor before = exp(x);
  Profile outer;
  std::thread([&] { const Tensor elsewhere = sin(x); }).join();
  {
    const Profile inner;
    const Tensor y = cos(x);
    EXPECT_EQ(row_of(inner, "cos").calls, 1);
  }
  const Tensor z = tanh(x);
  outer.stop();
  const Tensor after = log(x);
  EXPECT_EQ(outer.rows().size(), 1u);
  EXPECT_EQ(row_of(outer, "tanh").calls, 1);
  EXPECT_EQ(observer, nullptr);
}

TEST(Profiler, ErrorsLeaveItSound) {
  const Tensor x = Tensor::ones({4}).set_requires_grad(true);
  Profile profile;
  register_hook(x, [](const Tensor&) -> Tensor { throw std::runtime_error("hook"); });
  EXPECT_THROW(sum(mul(x, 2)).backward(), std::runtime_error);
  EXPECT_THROW(matmul(x, Tensor::ones({3})), Error);
  const Tensor y = exp(x);
  EXPECT_EQ(row_of(profile, "exp").calls, 1) << "and not part of the backward pass that failed";
}

TEST(Profiler, TheTableNamesRowsAndSums) {
  const Tensor x = Tensor::ones({64, 64}).set_requires_grad(true);
  Profile profile;
  sum(exp(matmul(x, x))).backward();
  profile.stop();
  const std::string table = profile.table(2);
  std::istringstream lines(table);
  std::string line;
  int count = 0;
  while (std::getline(lines, line)) ++count;
  EXPECT_EQ(count, 5) << table;  // the head, two rows, the row of other ops, and the sum
  for (const char* part : {"calls", "self ms", "share", "allocated MB", " others", "outside kernels", "peak"})
    EXPECT_NE(table.find(part), std::string::npos) << part;
  EXPECT_NE(profile.table().find("matmul (backward)"), std::string::npos);
}

TEST(Profiler, SpansGoToTheTrace) {
  const test::TemporaryDirectory folder;
  Trace trace(folder.path(), 0);
  {
    Profile profile({.trace = &trace});
    const Tensor x = Tensor::ones({4}).set_requires_grad(true);
    sum(exp(x)).backward();
  }
  trace.close();
  std::stringstream text;
  text << std::ifstream(Trace::file_path(folder.path(), 0)).rdbuf();
  for (const char* part : {"\"ops\"", "\"exp\"", "\"forward\"", "\"backward\"", "\"sum\""})
    EXPECT_NE(text.str().find(part), std::string::npos) << part << " in " << text.str();
}

TEST(Profiler, EveryKernelIsTimed) {
  // All entries have the size of a pointer. The device's name, multiplies_16_bits and the seven functions
  // after them are not kernels.
  std::vector<void*> plain(sizeof(KernelTable) / sizeof(void*)), timed(plain.size());
  std::memcpy(plain.data(), &kernels_of(kCpu), sizeof(KernelTable));
  std::memcpy(timed.data(), &profiler::timed_kernels(), sizeof(KernelTable));
  for (std::size_t i = 9; i < plain.size(); ++i)
    EXPECT_NE(plain[i], timed[i]) << "entry " << i << " of KernelTable is missing in timed_kernels.cpp";
}

TEST(Profiler, CostsNextToNothingWhenOff) {
  const NoGrad off;
  const Tensor x = Tensor::ones({1});
  // Take the best of many short runs, so that other work of the machine does not count.
  const auto ns_per_op = [&] {
    double best = 1e9;
    for (int run = 0; run < 200; ++run) {
      const std::int64_t begin = Trace::now_ns();
      for (int i = 0; i < 200; ++i) neg(x);
      best = std::min(best, static_cast<double>(Trace::now_ns() - begin) / 200);
    }
    return best;
  };
  ns_per_op();
  const double plain = ns_per_op();
  double watched = 0;
  {
    const Profile profile;
    watched = ns_per_op();
  }
  const double again = ns_per_op();
  fmt::print("ns per op: off {:.0f}, on {:.0f}, off again {:.0f}\n", plain, watched, again);
  EXPECT_LT(again, watched);
  EXPECT_LT(again, 1.5 * plain);
}

TEST(Profiler, ProfilesMayEndInAnyOrder) {
  const Tensor x = Tensor::ones({4});
  auto first = std::make_unique<Profile>();
  for (int epoch = 0; epoch < 3; ++epoch) {
    auto next = std::make_unique<Profile>();  // begins before the previous one ends
    first = std::move(next);
    const Tensor y = exp(x);
    EXPECT_EQ(row_of(*first, "exp").calls, 1) << epoch;
  }
  Profile last;
  first->stop();
  const Tensor y = exp(x);
  EXPECT_EQ(row_of(last, "exp").calls, 1);
  last.stop();
  EXPECT_EQ(observer, nullptr);
}

}  // namespace
}  // namespace trireme
