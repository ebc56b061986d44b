#include "tests/support/rank_test.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "distributed/comm/local.h"
#include "distributed/comm/mpi.h"
#include "distributed/rendezvous/world.h"
#include "kernels/error.h"
#include "tests/support/watchdog.h"

namespace trireme::test {

namespace {

const MpiSession* mpi_session = nullptr;

void run_body(Communicator& comm, const std::function<void(Communicator&)>& body) {
  SCOPED_TRACE(fmt::format("{} rank {} of {}", comm.backend(), comm.rank(), comm.size()));
  body(comm);
}

struct Placement {
  const char* name;
  LocalHosts host_of;
};

/// Returns the placements of `size` ranks on hosts. Leaves out placements that are the same at this size.
std::vector<Placement> placements(int size) {
  std::vector<Placement> all{{"on one host", {}}};
  if (size > 1) all.push_back({"each on its own host", [](int rank) { return rank; }});
  if (size > 2) all.push_back({"two to a host", [](int rank) { return rank / 2; }});
  if (size > 2) all.push_back({"in turn on two hosts", [](int rank) { return rank % 2; }});
  return all;
}

/// Runs `body` once in a group of a larger world. The group has every other rank, and its ranks share hosts
/// with ranks that are not in the group.
void run_in_groups(int size, const std::function<void(Communicator&)>& body, const RankTestOptions& options) {
  run_local_ranks(
      2 * size + 1, options.patience,
      [&](Communicator& world) {
        SCOPED_TRACE("in a group of a larger world");
        const auto group = world.split(world.rank() == 0 ? -1 : world.rank() % 2);
        if (group && world.rank() % 2 == 1) run_body(*group, body);
      },
      [](int rank) { return rank / 3; });
}

}  // namespace

void for_each_communicator(std::initializer_list<int> sizes, const std::function<void(Communicator&)>& body,
                           const RankTestOptions& options) {
  const Watchdog watchdog("a rank test", options.limit);
  if (mpi_session != nullptr) {
    const auto wanted = [&](int size) { return std::ranges::find(sizes, size) != sizes.end(); };
    // Rank 0 waits for the group meanwhile, so the test needs the default patience.
    if (options.patience >= RankTestOptions().patience && wanted(mpi_session->size() - 1)) {
      const auto world = make_mpi_communicator(options.patience);
      if (const auto group = world->split(world->rank() == 0 ? -1 : 1)) run_body(*group, body);
    }
    if (wanted(mpi_session->size())) run_body(*make_mpi_communicator(options.patience), body);
    return;
  }
  for (const int size : sizes) {
    if (size == 1) run_body(*make_alone_communicator(), body);
    run_in_groups(size, body, options);
    for (const auto& [placement, host_of] : placements(size))
      run_local_ranks(
          size, options.patience,
          [&](Communicator& comm) {
            SCOPED_TRACE(placement);
            run_body(comm, body);
          },
          host_of);
  }
}

std::string error_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

bool over_mpi() { return mpi_session != nullptr; }

int rank_test_main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const World world = detect_world(process_environment());
  if (world.size == 1) return RUN_ALL_TESTS();
  const MpiSession session(std::chrono::seconds(30));
  confirmed_by_mpi(world, session.rank(), session.size(), session.local_rank(), session.local_size());
  mpi_session = &session;
  const int rc = RUN_ALL_TESTS();
  mpi_session = nullptr;
  return rc;
}

}  // namespace trireme::test
