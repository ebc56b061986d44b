#include "launcher/start_plan.h"

#include <algorithm>
#include <charconv>

#include "kernels/error.h"
#include "launcher/control.h"

namespace trireme {
namespace {

std::string value_of(const Surroundings& here, const std::string& name) {
  const auto found = here.variables.find(name);
  return found == here.variables.end() ? "" : found->second;
}

long number_or(const std::string& text, long otherwise) {
  long number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : otherwise;
}

/// Returns how many of `ranks` ranks each of `hosts` hosts gets: as evenly as the numbers allow.
std::vector<int> shares(int hosts, int ranks) {
  std::vector<int> all;
  for (int i = 0; i < hosts; ++i) all.push_back(ranks / hosts + (i < ranks % hosts));
  return all;
}

/// Returns mpirun's list of hosts with their ranks, "a:2,b:1": consecutive ranks share a host.
std::string slots(const std::vector<std::string>& hosts, int ranks) {
  std::string text;
  const std::vector<int> share = shares(static_cast<int>(hosts.size()), ranks);
  for (std::size_t i = 0; i < hosts.size(); ++i)
    if (share[i] > 0) text += fmt::format("{}{}:{}", text.empty() ? "" : ",", hosts[i], share[i]);
  return text;
}

/// Returns the environment variables that every rank needs, under mpirun and under srun.
Environment mpi_environment(const Surroundings& here, bool crowded, bool other_hosts) {
  Environment env = {
      {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
      {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
      {"OMPI_MCA_opal_signal", ""},  // report a crash in one line, without a stack trace
  };
  if (crowded) env.emplace("OMPI_MCA_mpi_yield_when_idle", "1");
  if (other_hosts) {
    env.merge(Environment{
        {"OMPI_MCA_oob_tcp_keepalive_time", "2"},
        {"OMPI_MCA_oob_tcp_keepalive_intvl", "1"},
        {"OMPI_MCA_oob_tcp_keepalive_probes", "3"},
        {"OMPI_MCA_btl_tcp_flags", "1"},  // use both directions of a link at once
    });
  }
  // Variables that the user has set take precedence.
  for (auto& [name, value] : env) {
    if (here.variables.contains(name)) value = here.variables.at(name);
  }
  return env;
}

std::vector<std::string> mpirun_command(const LaunchOptions& options, const Surroundings& here, int ranks,
                                        bool crowded, const Environment& env) {
  // Ranks compute with several threads, so they must not be bound to a core. mpirun must allow a guard to
  // exit without MPI_Finalize, because the launcher learns from the guard itself how the rank ended.
  std::vector<std::string> command = {"mpirun",
                                      "-np",
                                      std::to_string(ranks),
                                      "--bind-to",
                                      "none",
                                      "--mca",
                                      "orte_allowed_exit_without_sync",
                                      "1",
                                      "--mca",
                                      "orte_base_help_aggregate",
                                      "0"};
  if (crowded) command.push_back("--oversubscribe");
  if (options.hosts.empty()) return command;
  for (const char* word : {"--host", "", "--map-by", "slot"}) command.emplace_back(word);
  command[command.size() - 3] = slots(options.hosts, ranks);
  std::vector<std::string> exported = {kControlVariable};
  for (const auto& [name, value] : env) exported.push_back(name);
  for (const auto& [name, value] : here.variables) {
    if (name.starts_with("TRIREME_") || name.starts_with("OMP_") || name.starts_with("NCCL_"))
      exported.push_back(name);
  }
  for (const std::string& name : exported) {
    // mpirun exports its own OMPI_MCA_ variables itself and rejects -x for them.
    if (name.starts_with("OMPI_")) continue;
    command.insert(command.end(), {"-x", name});
  }
  return command;
}

}  // namespace

bool can_use_slurm(const Surroundings& here) {
  if (!here.has_srun || value_of(here, "SLURM_JOB_ID").empty()) return false;
  // Slurm counts the batch script and an interactive shell as steps, to which it gives the highest numbers.
  constexpr long kFirstSpecialStep = 0xfffffff0;
  return number_or(value_of(here, "SLURM_STEP_ID"), kFirstSpecialStep) >= kFirstSpecialStep;
}

int ranks_to_start(const LaunchOptions& options, const Surroundings& here) {
  if (options.ranks > 0) return options.ranks;
  if (options.backend == "mpi" && options.hosts.empty() && can_use_slurm(here)) {
    const long nodes = number_or(value_of(here, "SLURM_JOB_NUM_NODES"), 1);
    return static_cast<int>(number_or(value_of(here, "SLURM_NTASKS"), nodes));
  }
  fail(ExitCode::kUsage, "the number of ranks is missing: give -n N");
}

std::vector<std::string> hosts_left(const std::vector<std::string>& hosts, int ranks,
                                    const std::vector<int>& lost) {
  std::vector<std::string> gone;
  int end = 0;
  const std::vector<int> share = shares(static_cast<int>(hosts.size()), ranks);
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    const int first = end;
    end += share[i];
    if (std::ranges::any_of(lost, [&](int rank) { return rank >= first && rank < end; }))
      gone.push_back(hosts[i]);
  }
  std::vector<std::string> left = hosts;
  std::erase_if(left, [&](const std::string& host) { return std::ranges::find(gone, host) != gone.end(); });
  return left;
}

StartPlan plan_start(const LaunchOptions& options, const Surroundings& here, int ranks,
                     const std::vector<std::string>& guard) {
  StartPlan plan;
  plan.processes = ranks;
  if (options.backend == "local") {
    plan.processes = 1;
    plan.env["TRIREME_LOCAL_RANKS"] = std::to_string(ranks);
  } else if (options.hosts.empty() && can_use_slurm(here)) {
    plan.outside = true;
    const long per_node = number_or(value_of(here, "SLURM_CPUS_ON_NODE"), here.cores);
    const long nodes = std::max(1L, number_or(value_of(here, "SLURM_JOB_NUM_NODES"), 1));
    plan.env = mpi_environment(here, ranks > per_node * nodes, true);
    plan.command = {"srun",        "--mpi=pmix", "-n", std::to_string(ranks), "--kill-on-bad-exit=1",
                    "--input=none"};
    if (ranks > per_node * nodes) plan.command.push_back("--overcommit");
  } else {
    plan.outside = !options.hosts.empty();
    const int hosts = std::max(1, static_cast<int>(options.hosts.size()));
    const bool crowded = ranks > here.cores * hosts;
    plan.env = mpi_environment(here, crowded, plan.outside);
    plan.command = mpirun_command(options, here, ranks, crowded, plan.env);
  }
  plan.command.insert(plan.command.end(), guard.begin(), guard.end());
  plan.command.insert(plan.command.end(), options.program.begin(), options.program.end());
  return plan;
}

}  // namespace trireme
