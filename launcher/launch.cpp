// `trireme launch`: starts a program on N ranks, supervises it, and restarts it on the remaining ranks.
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "core/base/terminal.h"
#include "distributed/train/help.h"
#include "kernels/error.h"
#include "launcher/commands.h"
#include "launcher/flags.h"
#include "launcher/process.h"
#include "launcher/start_plan.h"
#include "launcher/supervisor.h"

namespace trireme {
namespace {

constexpr int kMostRanks = 16384;
constexpr const char* kUsage = "trireme launch -n N [OPTIONS] -- PROGRAM [ARGS]";

/// Reads the options. Returns false if the user asked for help, which it has then printed. Throws
/// Error(kUsage) if they are wrong.
bool read_options(int argc, char** argv, LaunchOptions* options) {
  const int separator = static_cast<int>(std::find(argv, argv + argc, std::string("--")) - argv);
  CLI::App app("Start a program on N ranks, supervise it, restart it on what is left.", "trireme launch");
  app.set_help_flag("-h,--help", "Show this text and end");
  // CLI11 would show a range's own description in the help, as a part of the value's name.
  const auto range = [](auto least, auto most) { return CLI::Range(least, most).description(""); };
  app.add_option("-n,--ranks", options->ranks,
                 "Number of ranks (default in a Slurm allocation: its number of tasks)")
      ->type_name("N")
      ->check(range(1, kMostRanks));
  app.add_option("--hosts", options->hosts, "Hosts to use, reached by ssh")
      ->type_name("A,B,...")
      ->delimiter(',');
  app.add_option("--backend", options->backend, "mpi: ranks are processes; local: threads of one process")
      ->type_name("mpi|local")
      ->check(CLI::IsMember({"mpi", "local"}).description(""))
      ->capture_default_str();
  app.add_option("--min", options->min_ranks, "Never restart on fewer ranks")
      ->type_name("N")
      ->check(range(1, kMostRanks))
      ->capture_default_str();
  app.add_option("--restarts", options->restarts, "How often to restart after a lost rank")
      ->type_name("R")
      ->check(range(0, 1000000))
      ->capture_default_str();
  app.add_option("--patience", options->patience,
                 "How long ranks may take to start, and to end after a signal")
      ->type_name("SECONDS")
      ->check(range(0.1, 86400.0))
      ->capture_default_str();
  const bool help = std::any_of(argv, argv + separator,
                                [](std::string_view word) { return word == "--help" || word == "-h"; });
  if (separator == argc && !help) fail(ExitCode::kUsage, "launch: '--' is missing: {}", kUsage);
  try {
    app.parse(separator, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(help_text(app, kUsage).c_str(), stdout);
    return false;
  } catch (const CLI::ExtrasError&) {
    fail_unknown(app);
  } catch (const CLI::ParseError& error) {
    const std::string text = error.what();
    const bool ranks = text.starts_with("--ranks");  // users know this flag as -n
    fail(ExitCode::kUsage, "launch: {}{}", ranks ? "-n" : "", ranks ? text.substr(7) : text);
  }
  options->program.assign(argv + separator + 1, argv + argc);
  if (options->program.empty())
    fail(ExitCode::kUsage, "launch: the program is missing after '--': {}", kUsage);
  if (options->backend == "local" && !options->hosts.empty()) {
    fail(ExitCode::kUsage, "launch: --hosts needs --backend mpi: threads cannot be on several hosts");
  }
  return true;
}

Surroundings look_around() {
  Surroundings here;
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) here.cores = CPU_COUNT(&cores);
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) here.variables[text.substr(0, equals)] = text.substr(equals + 1);
  }
  try {
    find_program("srun");
    here.has_srun = true;
  } catch (const Error&) {
    here.has_srun = false;
  }
  return here;
}

/// Blocks the signals that the launcher handles and returns a signalfd for them. Also makes this process the
/// subreaper of its descendants.
int take_charge() {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;  // the launcher needs one connection for each rank
    setrlimit(RLIMIT_NOFILE, &files);
  }
  sigset_t watched;
  sigemptyset(&watched);
  signal(SIGPIPE, SIG_IGN);  // the reader of standard error may go away
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU}) {
    struct sigaction now;
    sigaction(number, nullptr, &now);
    if (now.sa_handler != SIG_IGN) sigaddset(&watched, number);  // nohup ignores SIGHUP; keep it ignored
  }
  sigaddset(&watched, SIGCHLD);
  sigprocmask(SIG_BLOCK, &watched, nullptr);
  return signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
}

std::string ranks_text(int ranks) { return fmt::format("{} rank{}", ranks, ranks == 1 ? "" : "s"); }

/// Adds the reason to the verdict's line if the user gave --restarts but the job is not restarted.
void explain_no_restart(const LaunchOptions& options, Verdict* verdict) {
  if (options.restarts == 0 || !verdict->by_exit || verdict->restartable) return;
  if (!verdict->line.empty()) verdict->line += "; ";
  verdict->line += fmt::format("not restarted: no rank was lost, code {} is the program's own failure",
                               verdict->exit_code);
}

/// Prints a line to standard error. On a terminal it replaces a progress line that a rank may have left
/// there.
void say(const std::string& line) {
  fmt::print(stderr, "{}trireme: {}\n", terminal_columns(STDERR_FILENO) > 0 ? "\r\x1b[K" : "", line);
}

/// Runs the job, restarts it as often as the options allow, and returns the final verdict.
Verdict run_job(LaunchOptions options, Surroundings here, int signals) {
  const std::vector<std::string> guard = {own_path(), "rank-guard"};
  const auto patience = std::chrono::milliseconds(std::llround(options.patience * 1e3));
  int ranks = ranks_to_start(options, here);
  for (int restart = 0;; ++restart) {
    const Environment told = {{"TRIREME_RESTART", std::to_string(restart)},
                              {kColumnsVariable, std::to_string(terminal_columns(STDERR_FILENO))}};
    for (const auto& [name, value] : told) here.variables[name] = value;  // exported to other hosts
    StartPlan plan = plan_start(options, here, ranks, guard);
    plan.env.insert(told.begin(), told.end());
    Supervisor supervisor(plan, patience, signals);
    Verdict verdict = supervisor.run();
    if (!supervisor.stop_requested()) explain_no_restart(options, &verdict);
    if (!verdict.restartable || supervisor.stop_requested() || restart == options.restarts) return verdict;
    // Ranks that are threads die together with their process, and all of them can be restarted.
    const int left = options.backend == "local" ? ranks : ranks - verdict.dead;
    const std::string what = verdict.line.empty() ? "a rank lost a peer" : verdict.line;
    const bool has_hosts = !options.hosts.empty();
    options.hosts = hosts_left(options.hosts, ranks, supervisor.lost_ranks());
    if (left < options.min_ranks || left < 1 || (has_hosts && options.hosts.empty())) {
      verdict.line = fmt::format("{}; {} left, too few to restart (--min {})", what, ranks_text(left),
                                 options.min_ranks);
      return verdict;
    }
    ranks = left;
    say(fmt::format("{}; restarting on {} (restart {} of {})", what, ranks_text(ranks), restart + 1,
                    options.restarts));
  }
}

}  // namespace

int launch_main(int argc, char** argv) {
  LaunchOptions options;
  if (!read_options(argc, argv, &options)) return 0;
  const Surroundings here = look_around();
  // With --hosts, the program need not exist on this host. The guards report it if they do not find it.
  if (options.hosts.empty()) find_program(options.program[0]);
  const int signals = take_charge();
  const Verdict verdict = run_job(options, here, signals);
  close(signals);
  if (!verdict.line.empty()) say(verdict.line);
  return verdict.exit_code;
}

}  // namespace trireme
