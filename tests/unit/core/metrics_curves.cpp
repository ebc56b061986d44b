#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cerrno>
#include <cmath>

#include "core/metrics/curves.h"
#include "core/metrics/gnuplot.h"
#include "core/metrics/jsonl.h"
#include "kernels/error.h"
#include "tests/unit/core/metrics_scratch.h"

namespace trireme {
namespace {

using test::read_text;
using test::Scratch;
using test::write_text;

constexpr std::string_view kPngSignature = "\x89PNG\r\n\x1a\n";

/// Returns the width and height of a PNG file, or 0 x 0 if the file is not a complete PNG.
std::pair<unsigned, unsigned> png_size(const std::filesystem::path& path) {
  const std::string bytes = read_text(path);
  if (!bytes.starts_with(kPngSignature) || bytes.find("IEND") == std::string::npos) return {0, 0};
  const auto big_endian = [&](std::size_t at) {
    unsigned value = 0;
    for (std::size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes.at(i));
    return value;
  };
  return {big_endian(16), big_endian(20)};
}

void write_run(const std::filesystem::path& path, int steps) {
  JsonlWriter writer(path);
  for (int step = 1; step <= steps; ++step) {
    Record record;
    record.set("step", step).set("loss", step == 3 ? std::nan("") : 2.0 / step).set("lr", 0.1);
    record.set("samples_per_s", 20000.0 + step).set("comm_ms", 4).set("comm_exposed_ms", 1);
    record.set("world_size", step < 3 ? 2 : 3);
    if (step % 2 == 0) record.set("eval_accuracy", 0.5).set("eval_loss", 1.0);
    writer.write(record);
  }
}

/// Puts a folder at the front of PATH, or makes it the only one, while this object exists.
class ProgramFolder {
 public:
  explicit ProgramFolder(const std::filesystem::path& folder) : old_(getenv("PATH")) {
    setenv("PATH", folder.c_str(), 1);
  }
  ~ProgramFolder() { setenv("PATH", old_.c_str(), 1); }

 private:
  std::string old_;
};

void write_program(const std::filesystem::path& path, const std::string& body) {
  write_text(path, "#!/bin/sh\n" + body);
  chmod(path.c_str(), 0755);
}

bool gnuplot_is_there() {
  const std::string path = getenv("PATH");
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find(':', begin), path.size());
    if (std::filesystem::exists(std::filesystem::path(path.substr(begin, end - begin)) / "gnuplot"))
      return true;
    begin = end + 1;
  }
  return false;
}

#define NEEDS_GNUPLOT() \
  if (!gnuplot_is_there()) GTEST_SKIP() << "gnuplot is not installed"

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return fmt::format("{}: {}", static_cast<int>(error.code()), error.what());
  }
  return "nothing was thrown";
}

std::size_t files_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

TEST(Curves, DrawRunsOfAnyLength) {
  NEEDS_GNUPLOT();
  for (const int steps : {1, 2, 3, 39, 40, 41, 5000}) {
    const Scratch scratch;
    write_run(scratch / "m.jsonl", steps);
    draw_curves(scratch / "m.jsonl", scratch / "p.png", "a run");
    EXPECT_EQ(png_size(scratch / "p.png"), std::pair(1200u, 800u)) << steps;
    EXPECT_EQ(files_in(scratch.path()), 2u);  // no temporary file is left
  }
}

TEST(Curves, DrawWhatThereIs) {
  NEEDS_GNUPLOT();
  const Scratch scratch;
  for (const char* line :
       {R"({"step": 0})", R"({"step": 5, "loss": null})", R"({"step": 7, "lr": 0})",
        R"({"step": 2, "loss": 1e300, "eval_accuracy": 1.0})", R"({"step": 1, "loss": "text"})"}) {
    write_text(scratch / "m.jsonl", std::string(line) + "\n");
    draw_curves(scratch / "m.jsonl", scratch / "p.png", "");
    EXPECT_EQ(png_size(scratch / "p.png"), std::pair(1200u, 800u)) << line;
  }
}

TEST(Curves, OddPathsAndTitlesAreJustText) {
  NEEDS_GNUPLOT();
  const Scratch scratch;
  const auto folder = scratch / "it's a \"folder\" $(touch x) `y` \\n \n ;";
  write_run(folder / "m'.jsonl", 5);
  draw_curves(folder / "m'.jsonl", folder / "new'/p\".png",
              "it's 'a' \"title\"\n; system 'touch z' \\ _a^b {c} \xff");
  EXPECT_EQ(png_size(folder / "new'/p\".png"), std::pair(1200u, 800u));
  EXPECT_EQ(files_in(scratch.path()), 1u);
  EXPECT_FALSE(std::filesystem::exists("z"));
}

TEST(Curves, SayWhatIsWrongWithTheMetrics) {
  const Scratch scratch;
  write_text(scratch / "m", "");
  EXPECT_EQ(message_of([&] { draw_curves(scratch / "m", scratch / "p.png", ""); }),
            fmt::format("3: cannot draw {}: it has no line of metrics yet", (scratch / "m").string()));
  write_text(scratch / "m", "{\"step\": 1}\ngarbage\n");
  EXPECT_TRUE(message_of([&] {
                draw_curves(scratch / "m", scratch / "p.png", "");
              }).starts_with(fmt::format("3: {}:2:", (scratch / "m").string())));
  EXPECT_TRUE(message_of([&] { draw_curves(scratch / "none", scratch / "p.png", ""); }).starts_with("2: "));
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

TEST(Gnuplot, MissingIsOneClearLine) {
  const Scratch scratch;
  const ProgramFolder nothing(scratch.path());
  EXPECT_EQ(message_of([&] { run_gnuplot("", scratch / "p.png", std::chrono::seconds(10)); }),
            fmt::format("2: cannot draw {}: gnuplot is not installed (apt install gnuplot-nox)",
                        (scratch / "p.png").string()));
  EXPECT_EQ(files_in(scratch.path()), 0u);
}

TEST(Gnuplot, FailureCarriesItsMessageAndKeepsTheOldPicture) {
  const Scratch scratch;
  write_text(scratch / "p.png", "old");
  std::filesystem::create_directory(scratch / "bin");
  write_program(scratch / "bin/gnuplot", "echo half; echo 'line one\n\n  line two' >&2; exit 3\n");
  const ProgramFolder fake(scratch / "bin");
  EXPECT_EQ(message_of([&] { run_gnuplot("", scratch / "p.png", std::chrono::seconds(10)); }),
            fmt::format("2: cannot draw {}: gnuplot ended with 3: line one line two ",
                        (scratch / "p.png").string()));
  EXPECT_EQ(read_text(scratch / "p.png"), "old");
  EXPECT_EQ(files_in(scratch.path()), 2u);
}

TEST(Gnuplot, NoOutputIsAFailure) {
  const Scratch scratch;
  std::filesystem::create_directory(scratch / "bin");
  write_program(scratch / "bin/gnuplot", "exit 0\n");
  const ProgramFolder fake(scratch / "bin");
  EXPECT_NE(
      message_of([&] { run_gnuplot("", scratch / "p.png", std::chrono::seconds(10)); }).find("ended with 0"),
      std::string::npos);
  EXPECT_EQ(files_in(scratch.path()), 1u);
}

TEST(Gnuplot, DeadlineKillsIt) {
  const Scratch scratch;
  std::filesystem::create_directory(scratch / "bin");
  write_program(scratch / "bin/gnuplot", "while :; do :; done\n");
  const ProgramFolder fake(scratch / "bin");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_NE(message_of([&] {
              run_gnuplot("", scratch / "p.png", std::chrono::milliseconds(200));
            }).find("gnuplot still ran after 200 ms"),
            std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // no child is left, not even a zombie
  EXPECT_EQ(errno, ECHILD);
}

TEST(Curves, HeadingLeavesTheRateToTheRun) {
  // A file may hold several runs on different machines and numbers of ranks, so there is no common rate.
  const Scratch scratch;
  write_run(scratch / "m.jsonl", 30);
  std::filesystem::create_directory(scratch / "bin");
  write_program(scratch / "bin/gnuplot", "exec /bin/cat\n");
  const ProgramFolder fake(scratch / "bin");
  draw_curves(scratch / "m.jsonl", scratch / "p.png", "title");
  const std::string script = read_text(scratch / "p.png");
  EXPECT_NE(script.find("set label 2 "), std::string::npos);
  const std::string heading = script.substr(script.find("set label 2 "), 200);
  EXPECT_EQ(heading.substr(0, heading.find('\n')).find("/s"), std::string::npos) << heading;
}

TEST(Gnuplot, ScriptGoesInAndPictureComesOutWhole) {
  const Scratch scratch;
  std::filesystem::create_directory(scratch / "bin");
  write_program(scratch / "bin/gnuplot", "exec /bin/cat\n");
  const ProgramFolder fake(scratch / "bin");
  const std::string script(3 << 20, 's');  // much more than fits into a pipe
  run_gnuplot(script, scratch / "p.png", std::chrono::seconds(60));
  EXPECT_EQ(read_text(scratch / "p.png"), script);
}

}  // namespace
}  // namespace trireme
