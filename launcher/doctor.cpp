// `trireme doctor`: runs the checks one after another, each in its own process with a deadline, and prints a
// table or JSON.
#include "launcher/doctor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/train/help.h"
#include "kernels/error.h"
#include "launcher/commands.h"

namespace trireme {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::array<const char*, 4> kMarks = {"ok", "none", "warn", "fail"};
constexpr size_t kWidth = 80;

const char* name_of(Mark mark) { return kMarks[static_cast<size_t>(mark)]; }

json to_json(const char* name, const Finding& found) {
  return {{"name", name},
          {"mark", name_of(found.mark)},
          {"value", found.value},
          {"advice", found.advice},
          {"figures", found.figures}};
}

Finding failure(const std::string& what) { return {Mark::kFail, what, "", {}}; }

/// Runs a check in the child process, writes its finding to the pipe `out` as JSON, and exits.
[[noreturn]] void look_and_tell(const Check& check, int out) {
  Finding found;
  try {
    found = check.look();
  } catch (const std::exception& error) {
    found = failure(error.what());
  }
  json answer = to_json(check.name, found);
  answer["mark"] = static_cast<int>(found.mark);
  const std::string text = answer.dump(-1, ' ', false, json::error_handler_t::replace);
  _exit(write(out, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
}

/// Appends what arrives through the pipe to `text` until the pipe ends. Returns false at the deadline.
bool read_all(int fd, std::chrono::seconds deadline, std::string* text) {
  const auto end = Clock::now() + deadline;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd ready{fd, POLLIN, 0};
    if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) == 0) return false;
    char chunk[4096];
    const ssize_t got = read(fd, chunk, sizeof chunk);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    text->append(chunk, static_cast<size_t>(got));
  }
}

Finding run_check(const Check& check) {
  int answer[2];
  if (pipe2(answer, O_CLOEXEC) != 0) return failure(std::strerror(errno));
  std::fflush(stdout);
  const pid_t child = fork();
  if (child < 0) return failure(std::strerror(errno));
  if (child == 0) look_and_tell(check, answer[1]);
  close(answer[1]);
  std::string text;
  const bool in_time = read_all(answer[0], std::chrono::seconds(check.deadline_s), &text);
  close(answer[0]);
  if (!in_time) {
    // Do not wait for the child: SIGKILL does not end a process that hangs in a file system.
    kill(child, SIGKILL);
    return failure(fmt::format("no answer after {} s", check.deadline_s));
  }
  int status = 0;
  waitpid(child, &status, 0);
  const json parsed = json::parse(text, nullptr, false);
  if (parsed.is_discarded()) {
    return failure(WIFSIGNALED(status) ? fmt::format("the check died of signal {}", WTERMSIG(status))
                                       : "the check gave no answer");
  }
  return {static_cast<Mark>(parsed.at("mark").get<int>()), parsed.at("value"), parsed.at("advice"),
          parsed.at("figures")};
}

/// Cuts text into lines of at most `width` characters, at spaces where there are any.
std::vector<std::string> wrap(std::string_view text, size_t width) {
  std::vector<std::string> lines;
  while (text.size() > width) {
    size_t cut = text.rfind(' ', width);
    if (cut == std::string_view::npos || cut == 0) cut = width;
    lines.emplace_back(text.substr(0, cut));
    text.remove_prefix(cut);
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  }
  lines.emplace_back(text);
  return lines;
}

void print_row(const char* name, const Finding& found, bool colour) {
  constexpr std::array<const char*, 4> kColours = {"\033[32m", "\033[2m", "\033[33m", "\033[31m"};
  constexpr size_t kIndent = 23;
  const auto mark = static_cast<size_t>(found.mark);
  fmt::print("  {}{:<4}{}  {:<13}  ", colour ? kColours[mark] : "", kMarks[mark], colour ? "\033[0m" : "",
             name);
  bool first = true;
  for (const std::string& line : wrap(found.value, kWidth - kIndent)) {
    fmt::print("{:{}}{}\n", "", first ? 0 : kIndent, line);
    first = false;
  }
  if (found.advice.empty()) return;
  first = true;
  for (const std::string& line : wrap(found.advice, kWidth - kIndent - 3)) {
    fmt::print("{:{}}{} {}\n", "", kIndent, first ? "->" : "  ", line);
    first = false;
  }
}

void print_summary(int fails, int warnings) {
  const std::string noted = warnings == 0   ? ""
                            : warnings == 1 ? "; one thing could be better"
                                            : fmt::format("; {} things could be better", warnings);
  if (fails == 0) {
    fmt::print("\nThis machine can train{}.\n", noted);
  } else {
    fmt::print("\nThis machine cannot train: {} check{} failed{}.\n", fails, fails == 1 ? "" : "s", noted);
  }
}

}  // namespace

int doctor_main(int argc, char** argv) {
  const std::string_view option = argc > 1 ? argv[1] : "";
  if (option == "--help" || option == "-h") {
    CLI::App app("Checks whether this machine can train, and measures it. The exit code is 0 only if it can.",
                 "trireme doctor");
    app.set_help_flag("-h,--help", "Show this text and end");
    app.add_flag("--json")->description("Print the findings as JSON");
    fmt::print("{}", help_text(app));
    return 0;
  }
  const bool machine = option == "--json";
  if (argc > 2 || (argc == 2 && !machine))
    fail(ExitCode::kUsage, "doctor: '{}' is not an option; --json is", argv[argc - 1]);
  const bool colour = isatty(STDOUT_FILENO) != 0;
  json all = json::array();
  int count[4] = {0, 0, 0, 0};
  for (const auto checks : {machine_checks(), rank_checks()}) {
    for (const Check& check : checks) {
      const Finding found = run_check(check);
      ++count[static_cast<size_t>(found.mark)];
      all.push_back(to_json(check.name, found));
      if (!machine) print_row(check.name, found, colour);
    }
  }
  const int fails = count[static_cast<size_t>(Mark::kFail)];
  if (machine) {
    fmt::print("{}\n", json{{"can_train", fails == 0}, {"checks", all}}.dump(2));
  } else {
    print_summary(fails, count[static_cast<size_t>(Mark::kWarn)]);
  }
  // A failed check gives kUsage whatever the check threw: the cause is the machine's environment.
  return static_cast<int>(fails == 0 ? ExitCode::kDone : ExitCode::kUsage);
}

}  // namespace trireme
