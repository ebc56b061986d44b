// `trireme`: dispatches to the subcommands, each of which is in its own file.
#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/nearest.h"
#include "core/base/standard_output.h"
#include "distributed/train/help.h"
#include "kernels/error.h"
#include "launcher/commands.h"

namespace trireme {
namespace {

struct Command {
  std::string_view name;
  int (*main)(int, char**);
  std::string_view what;  ///< description for the help; empty: an internal command
};

constexpr std::array kCommands = {
    Command{"launch", launch_main, "Start a program on N ranks, supervise it, restart it on what is left"},
    Command{"doctor", doctor_main, "Check whether this machine can train, and measure it"},
    Command{"checkpoint", checkpoint_main, "List, verify, inspect, diff, export and import checkpoints"},
    Command{"report", report_main, "Write a page with pictures of a run, or of a scaling benchmark"},
    Command{"simulate", simulate_main, "Say how a traced job would scale to more ranks and other networks"},
    Command{"rank-guard", rank_guard_main, ""},
    Command{"selftest-mpi", selftest_mpi_main, ""},
};

void print_help() {
  CLI::App app("Starts, checks and looks at training jobs. `trireme COMMAND --help` tells more.", "trireme");
  app.set_help_flag("-h,--help", "Show this text and end");
  app.add_flag("--version")->description("Print the version");
  for (const Command& command : kCommands)
    if (!command.what.empty()) app.add_subcommand(std::string(command.name), std::string(command.what));
  fmt::print("{}", help_text(app, "trireme COMMAND [ARGUMENTS]"));
}

[[noreturn]] void fail_unknown(std::string_view name) {
  std::vector<std::string> known;
  for (const Command& command : kCommands) {
    if (!command.what.empty()) known.emplace_back(command.name);
  }
  if (const std::string meant = nearest(name, known); !meant.empty()) {
    fail(ExitCode::kUsage, "unknown command '{}': did you mean 'trireme {}'?", name, meant);
  }
  fail(ExitCode::kUsage, "unknown command '{}': 'trireme help' lists them", name);
}

int run(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name.empty()) {
    print_help();
    fail(ExitCode::kUsage, "a command is missing: 'trireme help' lists them");
  }
  if (name == "help" || name == "--help" || name == "-h") {
    if (name == "help" && argc > 2) {
      std::string of_command = "--help";
      std::array<char*, 4> words{argv[0], argv[2], of_command.data(), nullptr};
      return run(3, words.data());
    }
    print_help();
    return 0;
  }
  if (name == "--version" || name == "version") {
    std::puts("trireme " TRIREME_VERSION);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (command.name == name) return command.main(argc - 1, argv + 1);
  }
  fail_unknown(name);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  trireme::hold_standard_files();
  try {
    return trireme::checked_output(trireme::run(argc, argv));
  } catch (const trireme::Error& error) {
    fmt::print(stderr, "trireme: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "trireme: {}\n", error.what());
    return static_cast<int>(trireme::ExitCode::kInternal);
  }
}
