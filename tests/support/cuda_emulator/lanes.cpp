// Runs the lanes of a warp as fibers of one thread.
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "tests/support/cuda_emulator/emulator.h"

namespace trireme::cuda::emulator {

namespace {

/// The state of the lanes that run now.
struct Lanes {
  static constexpr std::size_t kStack = 256 * 1024;
  struct Lane {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    bool finished = true;
    Slot slots[2];
  };
  std::vector<std::unique_ptr<Lane>> lanes;
  ucontext_t home;
  const std::function<void(int)>* fn = nullptr;
  int count = 0, current = 0, arrived = 0;
  std::uint64_t round = 0;  ///< number of completed exchanges
};

Lanes& lanes() {
  static Lanes* const one = new Lanes;
  return *one;
}

void lane_main() {
  Lanes& l = lanes();
  const int me = l.current;
  (*l.fn)(me);
  l.lanes[static_cast<std::size_t>(me)]->finished = true;
}

}  // namespace

void run_lanes(int count, const std::function<void(int)>& fn) {
  Lanes& l = lanes();
  while (l.lanes.size() < static_cast<std::size_t>(count)) l.lanes.push_back(std::make_unique<Lanes::Lane>());
  l.fn = &fn;
  l.count = count;
  l.arrived = 0;
  for (int i = 0; i < count; ++i) {
    Lanes::Lane& lane = *l.lanes[static_cast<std::size_t>(i)];
    getcontext(&lane.context);
    lane.context.uc_stack.ss_sp = lane.stack.get();
    lane.context.uc_stack.ss_size = Lanes::kStack;
    lane.context.uc_link = &l.home;
    lane.finished = false;
    makecontext(&lane.context, lane_main, 0);
  }
  for (int left = count; left > 0;) {
    const std::uint64_t before = l.round;
    const int left_before = left;
    for (l.current = 0; l.current < count; ++l.current) {
      Lanes::Lane& lane = *l.lanes[static_cast<std::size_t>(l.current)];
      if (lane.finished) continue;
      swapcontext(&l.home, &lane.context);
      if (lane.finished) --left;
    }
    if (left > 0 && left == left_before && l.round == before) {
      std::fprintf(stderr, "cuda emulator: %d lanes wait for others that do not come\n", left);
      std::abort();
    }
  }
}

Slot exchange(int lane, const Slot& value, int from) {
  Lanes& l = lanes();
  const std::uint64_t round = l.round;
  l.lanes[static_cast<std::size_t>(lane)]->slots[round % 2] = value;
  if (++l.arrived == l.count) {
    l.arrived = 0;
    ++l.round;
  }
  while (l.round == round) swapcontext(&l.lanes[static_cast<std::size_t>(lane)]->context, &l.home);
  return l.lanes[static_cast<std::size_t>(from)]->slots[round % 2];
}

}  // namespace trireme::cuda::emulator
