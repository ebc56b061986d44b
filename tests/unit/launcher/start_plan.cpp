#include "launcher/start_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "kernels/error.h"

namespace trireme {
namespace {

LaunchOptions options(int ranks) {
  LaunchOptions given;
  given.ranks = ranks;
  given.program = {"train", "--seed", "1"};
  return given;
}

Surroundings allocation() {
  return {.cores = 4,
          .has_srun = true,
          .variables = {{"SLURM_JOB_ID", "7"},
                        {"SLURM_NTASKS", "6"},
                        {"SLURM_JOB_NUM_NODES", "3"},
                        {"SLURM_CPUS_ON_NODE", "4"}}};
}

StartPlan planned(const LaunchOptions& given, const Surroundings& here) {
  return plan_start(given, here, ranks_to_start(given, here), {"/bin/trireme", "rank-guard"});
}

std::string joined(const StartPlan& plan) {
  std::string text;
  for (const std::string& word : plan.command) text += (text.empty() ? "" : " ") + word;
  return text;
}

bool has(const StartPlan& plan, const std::string& text) {
  return joined(plan).find(text) != std::string::npos;
}

TEST(StartPlan, OneHostWithinItsCores) {
  const StartPlan plan = planned(options(4), {.cores = 4, .has_srun = false, .variables = {}});
  EXPECT_EQ(plan.processes, 4);
  EXPECT_FALSE(plan.outside);
  EXPECT_TRUE(has(plan, "mpirun -np 4 ")) << joined(plan);
  EXPECT_TRUE(joined(plan).ends_with("/bin/trireme rank-guard train --seed 1"));
  EXPECT_FALSE(has(plan, "--oversubscribe"));
  EXPECT_FALSE(plan.env.contains("OMPI_MCA_mpi_yield_when_idle"));
  EXPECT_EQ(plan.env.at("OMPI_ALLOW_RUN_AS_ROOT"), "1");
}

TEST(StartPlan, MoreRanksThanCoresYield) {
  const StartPlan plan = planned(options(5), {.cores = 4, .has_srun = false, .variables = {}});
  EXPECT_TRUE(has(plan, "--oversubscribe"));
  EXPECT_EQ(plan.env.at("OMPI_MCA_mpi_yield_when_idle"), "1");
}

TEST(StartPlan, WhatTheUserHasSetWins) {
  const StartPlan plan = planned(
      options(5), {.cores = 4, .has_srun = false, .variables = {{"OMPI_MCA_mpi_yield_when_idle", "0"}}});
  EXPECT_EQ(plan.env.at("OMPI_MCA_mpi_yield_when_idle"), "0");
}

TEST(StartPlan, HostsShareEvenly) {
  LaunchOptions given = options(5);
  given.hosts = {"a", "b", "c"};
  const StartPlan plan =
      planned(given, {.cores = 4, .has_srun = false, .variables = {{"OMP_NUM_THREADS", "2"}, {"HOME", "/"}}});
  EXPECT_TRUE(plan.outside);
  EXPECT_TRUE(has(plan, "--host a:2,b:2,c:1 --map-by slot")) << joined(plan);
  EXPECT_TRUE(has(plan, "-x OMP_NUM_THREADS"));
  EXPECT_TRUE(has(plan, "-x TRIREME_CONTROL"));
  EXPECT_FALSE(has(plan, "-x HOME"));
  EXPECT_FALSE(has(plan, "-x OMPI"));
  given.ranks = 2;
  EXPECT_TRUE(has(planned(given, {}), "--host a:1,b:1 ")) << "a host without a rank is left out";
}

TEST(HostsLeft, FollowFromTheNumbersOfTheLostRanks) {
  using Hosts = std::vector<std::string>;
  const Hosts addresses = {"10.0.0.1", "10.0.0.2", "10.0.0.3"};
  EXPECT_EQ(hosts_left(addresses, 5, {2}), (Hosts{"10.0.0.1", "10.0.0.3"}));
  EXPECT_EQ(hosts_left(addresses, 5, {3}), (Hosts{"10.0.0.1", "10.0.0.3"}));
  EXPECT_EQ(hosts_left(addresses, 5, {4}), (Hosts{"10.0.0.1", "10.0.0.2"}));
  EXPECT_EQ(hosts_left(addresses, 5, {0, 1, 4}), (Hosts{"10.0.0.2"}));
  EXPECT_EQ(hosts_left(addresses, 5, {}), addresses);
  EXPECT_EQ(hosts_left({"a.x.org", "a.y.org"}, 2, {1}), (Hosts{"a.x.org"})) << "the same name in two domains";
  EXPECT_EQ(hosts_left({"a", "b", "c"}, 2, {1}), (Hosts{"a", "c"})) << "a host without a rank is a spare";
  EXPECT_EQ(hosts_left({"a", "b", "b"}, 3, {1}), (Hosts{"a"})) << "a host that is named twice is lost as one";
  EXPECT_EQ(hosts_left({"a"}, 2, {0, 1}), Hosts());
  EXPECT_EQ(hosts_left({}, 2, {0}), Hosts());
}

TEST(StartPlan, ThreadsAreOneProcess) {
  LaunchOptions given = options(8);
  given.backend = "local";
  const StartPlan plan = planned(given, allocation());
  EXPECT_EQ(plan.processes, 1);
  EXPECT_EQ(joined(plan), "/bin/trireme rank-guard train --seed 1");
  EXPECT_EQ(plan.env.at("TRIREME_LOCAL_RANKS"), "8");
}

TEST(StartPlan, AllocationGivesTheNumberAndSrunStarts) {
  const StartPlan plan = planned(options(0), allocation());
  EXPECT_EQ(plan.processes, 6);
  EXPECT_TRUE(plan.outside);
  EXPECT_TRUE(joined(plan).starts_with("srun --mpi=pmix -n 6 --kill-on-bad-exit=1 ")) << joined(plan);
  EXPECT_FALSE(has(plan, "--overcommit"));
  EXPECT_TRUE(has(planned(options(13), allocation()), "--overcommit"));
}

TEST(StartPlan, OneRankPerNodeWhereNoTasksAreTold) {
  Surroundings here = allocation();
  here.variables.erase("SLURM_NTASKS");
  EXPECT_EQ(ranks_to_start(options(0), here), 3);
}

TEST(StartPlan, InsideAStepSlurmIsNotAskedAgain) {
  Surroundings here = allocation();
  EXPECT_TRUE(can_use_slurm(here));
  here.variables["SLURM_STEP_ID"] = "0";
  EXPECT_FALSE(can_use_slurm(here));
  here.variables["SLURM_STEP_ID"] = "4294967290";  // the id of salloc's interactive step
  EXPECT_TRUE(can_use_slurm(here));
  here.has_srun = false;
  EXPECT_FALSE(can_use_slurm(here));
}

TEST(StartPlan, WithoutAnAllocationTheNumberIsNeeded) {
  EXPECT_THROW(ranks_to_start(options(0), {}), Error);
  LaunchOptions given = options(0);
  given.hosts = {"a"};
  EXPECT_THROW(ranks_to_start(given, allocation()), Error) << "hosts given by hand are not the allocation";
}

}  // namespace
}  // namespace trireme
