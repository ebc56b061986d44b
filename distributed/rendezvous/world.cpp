#include "distributed/rendezvous/world.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <initializer_list>

#include "core/base/whole_number.h"
#include "kernels/error.h"

namespace trireme {

namespace {

int parse(const std::string& name, const std::string& text, int least, int most) {
  const std::optional<int> value = whole_number<int>(text);
  if (!value || *value < least || *value > most) {
    fail(ExitCode::kUsage,
         "environment variable {}=\"{}\" must be a number from {} to {}: unset it, or start with "
         "mpirun, srun or trireme launch",
         name, text, least, most);
  }
  return *value;
}

constexpr int kMostRanks = 1 << 20;

// A variable that must be there, because the launcher sets it along with `because`.
int required(const GetEnv& env, const std::string& name, int least, int most, const char* because) {
  const auto text = env(name);
  if (!text)
    fail(ExitCode::kUsage, "environment variable {} is set but {} is not: start with mpirun or srun", because,
         name);
  return parse(name, *text, least, most);
}

std::optional<int> optional(const GetEnv& env, const std::string& name, int least, int most) {
  const auto text = env(name);
  return text ? std::optional(parse(name, *text, least, most)) : std::nullopt;
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

World from_open_mpi(const GetEnv& env) {
  World world{.source = Source::kOpenMpi};
  const char* because = "OMPI_COMM_WORLD_SIZE";
  world.size = required(env, because, 1, kMostRanks, because);
  world.rank = required(env, "OMPI_COMM_WORLD_RANK", 0, world.size - 1, because);
  world.local_size = required(env, "OMPI_COMM_WORLD_LOCAL_SIZE", 1, world.size, because);
  world.local_rank = required(env, "OMPI_COMM_WORLD_LOCAL_RANK", 0, world.local_size - 1, because);
  return world;
}

// Slurm writes tasks per node as "2(x3),1": three nodes with two tasks, one with one.
int tasks_on_node(const std::string& name, const std::string& list, int node) {
  std::size_t at = 0;
  while (at < list.size()) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    const std::string item = list.substr(at, end - at);
    const std::size_t open = item.find("(x");
    const bool repeated = open != std::string::npos && item.ends_with(')');
    const int tasks = parse(name, item.substr(0, repeated ? open : item.size()), 1, kMostRanks);
    node -= repeated ? parse(name, item.substr(open + 2, item.size() - open - 3), 1, kMostRanks) : 1;
    if (node < 0) return tasks;
    at = end + 1;
  }
  fail(ExitCode::kUsage, "environment variable {}=\"{}\" does not reach this node (SLURM_NODEID)", name,
       list);
}

World from_slurm(const GetEnv& env) {
  World world{.source = Source::kSlurm};
  const char* because = "SLURM_STEP_ID";
  world.size = required(env, "SLURM_STEP_NUM_TASKS", 1, kMostRanks, because);
  world.rank = required(env, "SLURM_PROCID", 0, world.size - 1, because);
  world.local_rank = required(env, "SLURM_LOCALID", 0, world.size - 1, because);
  world.local_size = world.size;
  const std::string tasks = "SLURM_STEP_TASKS_PER_NODE";
  if (const auto list = env(tasks)) {
    world.local_size = tasks_on_node(tasks, *list, optional(env, "SLURM_NODEID", 0, kMostRanks).value_or(0));
  }
  if (world.local_rank >= world.local_size) {
    fail(ExitCode::kUsage, "SLURM_LOCALID={} but this node has {} tasks ({})", world.local_rank,
         world.local_size, tasks);
  }
  if (world.size > 1 && !env("PMIX_RANK") && !env("PMI_RANK")) {
    fail(ExitCode::kUsage,
         "srun started {} tasks without an MPI plugin, so they cannot find each other: use "
         "srun --mpi=pmix",
         world.size);
  }
  return world;
}

/// A launcher whose ranks cannot find each other through Open MPI or Slurm, and the names of its environment
/// variables. A null name stands for a variable that the launcher does not set.
struct ForeignLauncher {
  const char* name;
  const char* rank;
  std::array<const char*, 2> sizes;  ///< each holds the number of ranks; the first that is set counts
  const char* local_size = nullptr;  ///< holds the number of ranks on this host
  bool needs_size = false;           ///< the rank's variable alone may mean something else
};

constexpr std::array kForeignLaunchers = {
    ForeignLauncher{"PALS", "PALS_RANKID", {"PALS_SIZE", "PMI_SIZE"}, "PALS_LOCAL_SIZE"},
    ForeignLauncher{"ALPS", "ALPS_APP_PE", {"PMI_SIZE"}},
    ForeignLauncher{
        "MPICH, Intel MPI or another launcher with PMI", "PMI_RANK", {"PMI_SIZE"}, "MPI_LOCALNRANKS"},
    ForeignLauncher{"torchrun", "RANK", {"WORLD_SIZE"}, nullptr, true},
    ForeignLauncher{"Flux", "FLUX_TASK_RANK", {"FLUX_JOB_SIZE"}},
    ForeignLauncher{"MVAPICH", "MV2_COMM_WORLD_RANK", {"MV2_COMM_WORLD_SIZE"}, "MV2_COMM_WORLD_LOCAL_SIZE"},
    ForeignLauncher{"jsrun", "JSM_NAMESPACE_RANK", {"JSM_NAMESPACE_SIZE"}, "JSM_NAMESPACE_LOCAL_SIZE"},
    ForeignLauncher{"a launcher with PMIx", "PMIX_RANK", {}},
};

/// An environment variable that holds a whole number.
struct NumberVariable {
  const char* name;
  int value;
};

/// Returns the first of these environment variables that holds a whole number. Skips null names, and
/// variables with other text, which may belong to other programs.
std::optional<NumberVariable> first_number(const GetEnv& env, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto text = name ? env(name) : std::nullopt;
    if (const auto value = text ? whole_number<int>(*text) : std::nullopt)
      return NumberVariable{name, *value};
  }
  return {};
}

/// Throws Error(kUsage) if another launcher started this process as one of several ranks: each would take
/// itself for the only one, and all would write the same files. Variables of one rank are passed over,
/// because a shell may have inherited them.
void refuse_foreign_ranks(const GetEnv& env) {
  for (const ForeignLauncher& launcher : kForeignLaunchers) {
    const auto rank = first_number(env, {launcher.rank});
    auto size = first_number(env, {launcher.sizes[0], launcher.sizes[1]});
    if (!rank || (launcher.needs_size && !size)) continue;
    const auto local = first_number(env, {launcher.local_size});
    const bool alone_by_size = size ? size->value <= 1 : rank->value <= 0;
    const bool alone_on_host = !local || local->value <= 1;
    if (alone_by_size && alone_on_host) continue;
    if (alone_by_size) size = local;
    const std::string sizes = size ? fmt::format(", {}={}", size->name, size->value) : "";
    fail(ExitCode::kUsage,
         "{} started this process as one of several ranks ({}={}{}), which cannot find each other and would "
         "each train alone: start with Open MPI's mpirun, srun --mpi=pmix or trireme launch, or unset {} to "
         "train alone",
         launcher.name, launcher.rank, rank->value, sizes, launcher.rank);
  }
}

}  // namespace

std::string_view name_of(Source source) {
  switch (source) {
    case Source::kAlone:
      return "alone";
    case Source::kOpenMpi:
      return "mpirun";
    case Source::kSlurm:
      return "srun";
    case Source::kThreads:
      return "threads";
  }
  return "?";
}

GetEnv process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value ? std::optional<std::string>(value) : std::nullopt;
  };
}

bool is_restarted(const GetEnv& env) {
  return env("TRIREME_RESTART").value_or("0") != "0" || env("SLURM_RESTART_COUNT").value_or("0") != "0";
}

World detect_world(const GetEnv& env) {
  const auto threads = optional(env, "TRIREME_LOCAL_RANKS", 1, kMostRanks);
  World world;
  // Inside a Slurm job mpirun's processes see the SLURM_ variables of its own daemon, so mpirun goes first.
  // Outside of a step they describe the job, not this process.
  if (env("OMPI_COMM_WORLD_SIZE")) {
    world = from_open_mpi(env);
  } else if (env("SLURM_STEP_ID") && env("SLURM_PROCID")) {
    world = from_slurm(env);
  }
  if (threads) {
    if (world.size > 1) {
      fail(ExitCode::kUsage,
           "TRIREME_LOCAL_RANKS={} asks for ranks as threads, but {} started {} processes: use one of "
           "the two",
           *threads, name_of(world.source), world.size);
    }
    world = {.size = *threads, .local_size = *threads, .source = Source::kThreads};
  }
  // Ranks that Open MPI's mpirun or srun started find each other, whatever else the environment holds.
  if (world.source == Source::kAlone || world.source == Source::kThreads ||
      (world.source == Source::kSlurm && world.size == 1))
    refuse_foreign_ranks(env);
  world.host = host_name();
  return world;
}

bool needs_mpi(const World& world, std::string_view backend) {
  if (backend == "mpi") return true;
  if (backend == "local" || world.source == Source::kThreads) return false;
  // A single task needs no MPI, and MPI may refuse to start in it: `srun --pty bash` without an MPI plugin.
  return world.source == Source::kOpenMpi || (world.source == Source::kSlurm && world.size > 1);
}

World confirmed_by_mpi(World world, int rank, int size, int local_rank, int local_size) {
  if (world.size != size || world.rank != rank) {
    fail(ExitCode::kUsage,
         "{} says rank {} of {}, MPI says rank {} of {}: is the program linked to another MPI than "
         "the launcher's?",
         name_of(world.source), world.rank, world.size, rank, size);
  }
  world.local_rank = local_rank;
  world.local_size = local_size;
  return world;
}

}  // namespace trireme
