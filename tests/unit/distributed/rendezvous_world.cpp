#include "distributed/rendezvous/world.h"

#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "kernels/error.h"

namespace trireme {
namespace {

using Variables = std::map<std::string, std::string>;

GetEnv env(const Variables& variables) {
  return [&variables](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
}

World detect(const Variables& variables) { return detect_world(env(variables)); }

// Returns the message of the usage error for these variables.
std::string refusal(const Variables& variables) {
  try {
    detect(variables);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    return e.what();
  }
  return "accepted";
}

void expect_world(const World& world, Source source, int rank, int size, int local_rank, int local_size) {
  EXPECT_EQ(world.source, source);
  EXPECT_EQ(world.rank, rank);
  EXPECT_EQ(world.size, size);
  EXPECT_EQ(world.local_rank, local_rank);
  EXPECT_EQ(world.local_size, local_size);
  EXPECT_FALSE(world.host.empty());
}

const Variables kMpirun = {{"OMPI_COMM_WORLD_SIZE", "4"},
                           {"OMPI_COMM_WORLD_RANK", "3"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}};
const Variables kSrun = {{"SLURM_JOB_ID", "12"},        {"SLURM_STEP_ID", "0"},
                         {"SLURM_STEP_NUM_TASKS", "5"}, {"SLURM_PROCID", "4"},
                         {"SLURM_LOCALID", "0"},        {"SLURM_STEP_TASKS_PER_NODE", "2(x2),1"},
                         {"SLURM_NODEID", "2"},         {"PMIX_RANK", "4"}};

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

TEST(World, Alone) { expect_world(detect({}), Source::kAlone, 0, 1, 0, 1); }

TEST(World, Mpirun) { expect_world(detect(kMpirun), Source::kOpenMpi, 3, 4, 1, 2); }

TEST(World, Srun) {
  expect_world(detect(kSrun), Source::kSlurm, 4, 5, 0, 1);
  const auto second = with(kSrun, {{"SLURM_NODEID", "1"}, {"SLURM_PROCID", "3"}, {"SLURM_LOCALID", "1"}});
  expect_world(detect(second), Source::kSlurm, 3, 5, 1, 2);
}

TEST(World, MpirunInsideASlurmJobIsMpirun) {
  // Here Slurm's variables describe mpirun's daemon, with one task per node.
  const auto daemon = with(kSrun, {{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "1"}});
  expect_world(detect(with(daemon, kMpirun)), Source::kOpenMpi, 3, 4, 1, 2);
}

TEST(World, InABatchScriptOutsideOfAStepIsAlone) {
  expect_world(detect({{"SLURM_JOB_ID", "12"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}), Source::kAlone,
               0, 1, 0, 1);
}

TEST(World, Threads) {
  expect_world(detect({{"TRIREME_LOCAL_RANKS", "3"}}), Source::kThreads, 0, 3, 0, 3);
  EXPECT_NE(refusal(with(kMpirun, {{"TRIREME_LOCAL_RANKS", "3"}})).find("use one of the two"),
            std::string::npos);
}

TEST(World, SrunWithoutAnMpiPluginIsRefused) {
  EXPECT_NE(refusal(without(kSrun, "PMIX_RANK")).find("--mpi=pmix"), std::string::npos);
  const auto single = with(without(kSrun, "PMIX_RANK"), {{"SLURM_STEP_NUM_TASKS", "1"},
                                                         {"SLURM_PROCID", "0"},
                                                         {"SLURM_STEP_TASKS_PER_NODE", "1"},
                                                         {"SLURM_NODEID", "0"}});
  expect_world(detect(single), Source::kSlurm, 0, 1, 0, 1);
}

TEST(World, RefusesRanksOfLaunchersThatItCannotJoin) {
  const struct {
    Variables variables;
    const char* named;
  } several[] = {{{{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}, "PMI_RANK=0, PMI_SIZE=2"},
                 {{{"PMI_RANK", "3"}}, "PMI_RANK=3"},
                 {{{"RANK", "0"}, {"WORLD_SIZE", "4"}}, "torchrun .*RANK=0, WORLD_SIZE=4"},
                 {{{"FLUX_TASK_RANK", "1"}, {"FLUX_JOB_SIZE", "2"}}, "Flux .*FLUX_TASK_RANK=1"},
                 {{{"FLUX_TASK_RANK", "1"}}, "Flux"},
                 {{{"MV2_COMM_WORLD_RANK", "0"}, {"MV2_COMM_WORLD_SIZE", "2"}}, "MVAPICH"},
                 {{{"JSM_NAMESPACE_RANK", "0"}, {"JSM_NAMESPACE_SIZE", "2"}}, "jsrun"},
                 {{{"PALS_RANKID", "2"}}, "PALS"},
                 {{{"PALS_RANKID", "0"}, {"PALS_SIZE", "2"}}, "PALS .*PALS_RANKID=0, PALS_SIZE=2"},
                 {{{"PALS_RANKID", "0"}, {"PALS_LOCAL_SIZE", "4"}}, "PALS .*PALS_LOCAL_SIZE=4"},
                 {{{"PALS_RANKID", "0"}, {"PMI_RANK", "0"}, {"PMI_SIZE", "8"}}, "PALS .*PMI_SIZE=8"},
                 {{{"ALPS_APP_PE", "2"}}, "ALPS"},
                 {{{"ALPS_APP_PE", "0"}, {"PMI_SIZE", "3"}}, "ALPS .*ALPS_APP_PE=0, PMI_SIZE=3"},
                 {{{"PMI_RANK", "0"}, {"MPI_LOCALNRANKS", "2"}}, "PMI_RANK=0, MPI_LOCALNRANKS=2"},
                 {{{"TRIREME_LOCAL_RANKS", "2"}, {"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}, "PMI_RANK=1"},
                 {{{"PMIX_RANK", "1"}}, "PMIX_RANK=1"}};
  for (const auto& [variables, named] : several)
    EXPECT_TRUE(std::regex_search(refusal(variables), std::regex(std::string(named) + ".*trireme launch")))
        << refusal(variables);
  // Hydra starts one proxy per node through srun, and the ranks inherit the proxy's variables.
  const Variables proxy = {{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"},
                           {"SLURM_PROCID", "0"},  {"SLURM_LOCALID", "0"},
                           {"PMI_RANK", "1"},      {"PMI_SIZE", "2"}};
  EXPECT_NE(refusal(proxy).find("PMI_RANK=1"), std::string::npos);
}

TEST(World, TakesStaleVariablesOfOneRankForAlone) {
  for (const Variables& variables :
       {Variables{{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}, Variables{{"PMI_RANK", "0"}},
        Variables{{"RANK", "0"}, {"WORLD_SIZE", "1"}}, Variables{{"RANK", "7"}},
        Variables{{"WORLD_SIZE", "8"}}, Variables{{"FLUX_TASK_RANK", "0"}, {"FLUX_JOB_SIZE", "1"}},
        Variables{{"FLUX_JOB_SIZE", "4"}}, Variables{{"PMIX_RANK", "0"}}, Variables{{"PALS_RANKID", "0"}},
        Variables{{"PALS_RANKID", "0"}, {"PALS_LOCAL_SIZE", "1"}}, Variables{{"ALPS_APP_PE", "0"}},
        Variables{{"RANK", "major"}, {"WORLD_SIZE", "big"}}})
    expect_world(detect(variables), Source::kAlone, 0, 1, 0, 1);
  // The variables of a known launcher take precedence over other variables of the environment.
  expect_world(detect(with(kMpirun, {{"RANK", "0"}, {"WORLD_SIZE", "8"}})), Source::kOpenMpi, 3, 4, 1, 2);
}

TEST(World, TellsARestartByTheLauncherAndByARequeue) {
  for (const Variables& variables : {Variables{}, Variables{{"TRIREME_RESTART", "0"}},
                                     Variables{{"SLURM_RESTART_COUNT", "0"}, {"TRIREME_RESTART", "0"}}})
    EXPECT_FALSE(is_restarted(env(variables)));
  for (const Variables& variables :
       {Variables{{"TRIREME_RESTART", "1"}}, Variables{{"SLURM_RESTART_COUNT", "2"}},
        Variables{{"SLURM_RESTART_COUNT", "1"}, {"TRIREME_RESTART", "0"}}})
    EXPECT_TRUE(is_restarted(env(variables)));
}

TEST(World, ConnectsRanksThroughMpiWhateverMovesTheirGradients) {
  for (const char* backend : {"auto", "nccl", "mpi"}) {
    EXPECT_TRUE(needs_mpi(detect(kMpirun), backend)) << backend;
    EXPECT_TRUE(needs_mpi(detect(kSrun), backend)) << backend;
  }
  EXPECT_FALSE(needs_mpi(detect({}), "auto"));
  EXPECT_FALSE(needs_mpi(detect({}), "nccl"));
  EXPECT_FALSE(needs_mpi(detect({{"TRIREME_LOCAL_RANKS", "3"}}), "auto"));
  // In a shell from `srun --pty` there is one task, and MPI may be unable to start.
  const Variables shell = {
      {"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}};
  EXPECT_FALSE(needs_mpi(detect(shell), "auto"));
  EXPECT_FALSE(needs_mpi(detect(shell), "nccl"));
  EXPECT_TRUE(needs_mpi(detect(shell), "mpi"));
}

TEST(World, GarbageIsNamed) {
  for (const char* value : {"", "x", "-1", "4x", " 4", "1e3", "99999999999", "0x2"}) {
    EXPECT_NE(refusal(with(kMpirun, {{"OMPI_COMM_WORLD_SIZE", value}})).find("OMPI_COMM_WORLD_SIZE=\""),
              std::string::npos)
        << value;
    EXPECT_NE(refusal({{"TRIREME_LOCAL_RANKS", value}}).find("TRIREME_LOCAL_RANKS=\""), std::string::npos)
        << value;
  }
  EXPECT_NE(refusal({{"TRIREME_LOCAL_RANKS", "0"}}).find("from 1"), std::string::npos);
  EXPECT_NE(refusal(with(kMpirun, {{"OMPI_COMM_WORLD_RANK", "4"}})).find("from 0 to 3"), std::string::npos);
  EXPECT_NE(refusal(without(kMpirun, "OMPI_COMM_WORLD_RANK")).find("OMPI_COMM_WORLD_RANK is not"),
            std::string::npos);
  EXPECT_NE(refusal(with(kSrun, {{"SLURM_STEP_TASKS_PER_NODE", "2(x"}})).find("TASKS_PER_NODE"),
            std::string::npos);
  EXPECT_NE(refusal(with(kSrun, {{"SLURM_NODEID", "3"}})).find("SLURM_NODEID"), std::string::npos);
  EXPECT_NE(refusal(with(kSrun, {{"SLURM_LOCALID", "1"}})).find("1 tasks"), std::string::npos);
}

TEST(World, MpiHasTheLastWordOnPlacesButMustAgreeOnRanks) {
  const World world = confirmed_by_mpi(detect(kMpirun), 3, 4, 0, 1);
  expect_world(world, Source::kOpenMpi, 3, 4, 0, 1);
  EXPECT_THROW(confirmed_by_mpi(detect(kMpirun), 0, 1, 0, 1), Error);
  EXPECT_THROW(confirmed_by_mpi(detect(kMpirun), 2, 4, 0, 1), Error);
}

TEST(World, ReadsTheRealEnvironment) {
  setenv("TRIREME_LOCAL_RANKS", "2", 1);
  EXPECT_EQ(process_environment()("TRIREME_LOCAL_RANKS"), "2");
  unsetenv("TRIREME_LOCAL_RANKS");
  EXPECT_EQ(process_environment()("TRIREME_LOCAL_RANKS"), std::nullopt);
}

}  // namespace
}  // namespace trireme
