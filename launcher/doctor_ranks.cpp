// The checks of the programs that start ranks (MPI and Slurm), and of an all-reduce over two ranks.
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/error.h"
#include "launcher/doctor.h"
#include "launcher/process.h"

namespace trireme {
namespace {

using std::chrono::seconds;

Captured capture(std::vector<std::string> command, seconds deadline) {
  Spawn options;
  options.command = std::move(command);
  return run_captured(options, deadline);
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

/// Starts two ranks of `trireme selftest-mpi WHAT` as a user would, and reads the JSON line of rank 0.
nlohmann::json ask_two_ranks(const std::string& what) {
  const Captured run =
      capture({own_path(), "launch", "-n", "2", "--patience", "10", "--", own_path(), "selftest-mpi", what},
              seconds(18));
  if (run.timed_out) fail(ExitCode::kPeer, "two ranks had no answer after 18 s");
  if (!run.ok()) fail(ExitCode::kPeer, "two ranks failed: {}", first_line(run.output));
  const size_t begin = run.output.find('{');
  const auto answer = nlohmann::json::parse(
      begin == std::string::npos ? "" : first_line(run.output.substr(begin)), nullptr, false);
  if (answer.is_discarded()) fail(ExitCode::kPeer, "two ranks gave no figures: {}", first_line(run.output));
  return answer;
}

Finding look_at_mpi() {
  try {
    find_program("mpirun");
  } catch (const Error&) {
    return {Mark::kFail, "no mpirun", "install Open MPI (Debian: openmpi-bin), or use --backend local", {}};
  }
  const auto begin = std::chrono::steady_clock::now();
  const nlohmann::json answer = ask_two_ranks("latency");
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double latency = answer.at("latency_us");
  Finding found{Mark::kOk, "", "", {{"start_s", took}, {"latency_us", latency}}};
  found.value = fmt::format("{}, 2 ranks start and end in {:.1f} s, latency {:.1f} us",
                            answer.at("library").get<std::string>(), took, latency);
  return found;
}

Finding look_at_all_reduce() {
  const nlohmann::json answer = ask_two_ranks("allreduce");
  const double rate = answer.at("bytes_per_s"), small = answer.at("small_us");
  return {Mark::kOk,
          fmt::format("2 ranks of this host: {:.2f} GB/s at 16 MiB, {:.0f} us at 4 KiB, exact", rate / 1e9,
                      small),
          "",
          {{"bytes_per_s", rate}, {"small_us", small}}};
}

Finding look_at_slurm() {
  try {
    find_program("srun");
  } catch (const Error&) {
    return {Mark::kNone, "not here: mpirun starts the ranks", "", {}};
  }
  const Captured version = capture({"srun", "--version"}, seconds(4));
  const Captured types = capture({"srun", "--mpi=list"}, seconds(4));
  if (!version.ok())
    return {Mark::kWarn, "srun does not answer: " + first_line(version.output), "check slurm.conf", {}};
  Finding found{Mark::kOk, first_line(version.output), "", {}};
  if (types.output.find("pmix") == std::string::npos) {
    found.mark = Mark::kWarn;
    found.value += ", no PMIx";
    found.advice =
        "Open MPI under srun needs it: install Slurm's PMIx plugin, or use mpirun in the allocation";
  } else {
    found.value += ", PMIx";
  }
  return found;
}

constexpr std::array kChecks = {
    Check{"MPI", 20, look_at_mpi},
    Check{"all-reduce", 20, look_at_all_reduce},
    Check{"Slurm", 10, look_at_slurm},
};

}  // namespace

std::span<const Check> rank_checks() { return kChecks; }

}  // namespace trireme
