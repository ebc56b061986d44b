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

/// Ranks on hosts, without those that are alike at this size.
std::vector<Placement> placements(int size) {
  std::vector<Placement> all{{"on one host", {}}};
  if (size > 1) all.push_back({"each on its own host", [](int rank) { return rank; }});
  if (size > 2) all.push_back({"two to a host", [](int rank) { return rank / 2; }});
  if (size > 2) all.push_back({"in turn on two hosts", [](int rank) { return rank % 2; }});
  return all;
}

}  // namespace

void for_each_communicator(std::initializer_list<int> sizes, const std::function<void(Communicator&)>& body,
                           const RankTestOptions& options) {
  const Watchdog watchdog("a rank test", options.limit);
  if (mpi_session != nullptr) {
    if (std::ranges::find(sizes, mpi_session->size()) == sizes.end()) return;
    const auto comm = make_mpi_communicator(options.patience);
    run_body(*comm, body);
    return;
  }
  for (const int size : sizes) {
    if (size == 1) run_body(*make_alone_communicator(), body);
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
