// `trireme`: one program, one subcommand per file.
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/error.h"
#include "launcher/commands.h"

namespace trireme {
namespace {

struct Command {
  std::string_view name;
  int (*main)(int, char**);
  std::string_view what;  ///< empty: not shown to users
};

constexpr std::array kCommands = {
    Command{"launch", launch_main, "start a program on N ranks, supervise it, restart it on what is left"},
    Command{"doctor", doctor_main, "check whether this machine can train, and measure it"},
    Command{"checkpoint", checkpoint_main, "list, verify, inspect, diff, export and import checkpoints"},
    Command{"rank-guard", rank_guard_main, ""},
    Command{"selftest-mpi", selftest_mpi_main, ""},
};

void print_help() {
  std::puts("usage: trireme COMMAND [ARGS]\n");
  for (const Command& command : kCommands) {
    if (!command.what.empty()) fmt::print("  {:<12} {}\n", command.name, command.what);
  }
  std::puts("\n`trireme COMMAND --help` tells more; `trireme --version` names the version.");
}

/// Number of single-character edits between two words.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

[[noreturn]] void fail_unknown(std::string_view name) {
  const Command* nearest = nullptr;
  size_t distance = std::max<size_t>(2, name.size() / 2) + 1;
  for (const Command& command : kCommands) {
    const size_t d = edit_distance(name, command.name);
    if (!command.what.empty() && d < distance) {
      nearest = &command;
      distance = d;
    }
  }
  if (nearest) fail(ExitCode::kUsage, "unknown command '{}': did you mean 'trireme {}'?", name, nearest->name);
  fail(ExitCode::kUsage, "unknown command '{}': 'trireme help' lists them", name);
}

int run(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name.empty()) fail(ExitCode::kUsage, "a command is missing: 'trireme help' lists them");
  if (name == "help" || name == "--help" || name == "-h") {
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
  try {
    return trireme::run(argc, argv);
  } catch (const trireme::Error& error) {
    fmt::print(stderr, "trireme: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "trireme: {}\n", error.what());
    return static_cast<int>(trireme::ExitCode::kInternal);
  }
}
