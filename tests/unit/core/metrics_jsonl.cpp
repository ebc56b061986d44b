#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/metrics/jsonl.h"
#include "kernels/error.h"
#include "tests/unit/core/metrics_scratch.h"

namespace trireme {
namespace {

using test::read_text;
using test::Scratch;
using test::write_text;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Record step_record(std::int64_t step) { return Record().set("step", step).set("loss", 1.0 / double(step)); }

std::vector<std::int64_t> steps_of(const std::filesystem::path& path) {
  std::vector<std::int64_t> steps;
  read_metrics(path, [&](const Record& record) { steps.push_back(*record.step()); });
  return steps;
}

/// Runs `body` and returns the error that it throws. Fails the test if it throws none.
template <class Body>
Error error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ExitCode::kDone, "");
}

TEST(Record, KeepsOrderAndReplacesInPlace) {
  Record record;
  record.set("step", 3).set("loss", 0.5).set("digest", "ab\"c\n").set("loss", 0.25);
  EXPECT_EQ(record.to_json(), R"({"step": 3, "loss": 0.25, "digest": "ab\"c\n"})");
  EXPECT_EQ(record.step(), 3);
  EXPECT_EQ(record.number("loss"), 0.25);
  EXPECT_EQ(record.number("step"), 3.0);
  EXPECT_EQ(record.number("digest"), std::nullopt);
  EXPECT_EQ(record.number("nothing"), std::nullopt);
}

TEST(Record, NumbersReadBackToTheSameBits) {
  for (const double value : {0.1, 1.0 / 3, 1e300, 5e-324, -0.0, 123456789.123456789, 1e20}) {
    const auto parsed = nlohmann::json::parse(Record().set("x", value).to_json());
    EXPECT_EQ(parsed["x"].get<double>(), value);
    EXPECT_EQ(std::signbit(parsed["x"].get<double>()), std::signbit(value));
  }
  const std::int64_t large = std::numeric_limits<std::int64_t>::min();
  EXPECT_EQ(nlohmann::json::parse(Record().set("x", large).to_json())["x"].get<std::int64_t>(), large);
}

TEST(Record, NonFiniteBecomesNullAndBadTextStaysJson) {
  EXPECT_EQ(Record().set("a", kNaN).set("b", kInf).set("c", -kInf).to_json(),
            R"({"a": null, "b": null, "c": null})");
  const auto parsed = nlohmann::json::parse(Record()
                                                .set("k\xff\"",
                                                     "v\xfe\0\\"
                                                     "x")
                                                .to_json());
  EXPECT_EQ(parsed.size(), 1u);
}

TEST(Record, ReadsItsOwnLinesOnly) {
  const auto record = Record::from_json(R"({"step": 7, "loss": null, "lr": 0.5, "digest": "ff"})");
  ASSERT_TRUE(record);
  EXPECT_EQ(record->step(), 7);
  EXPECT_TRUE(std::isnan(record->number("loss").value()));
  EXPECT_EQ(record->to_json(), R"({"step": 7, "loss": null, "lr": 0.5, "digest": "ff"})");
  for (const char* line :
       {"", "{", "7", "[1]", R"({"a": [1]})", R"({"a": {}})", R"({"a": true})", R"({"a": 1} x)"}) {
    EXPECT_FALSE(Record::from_json(line)) << line;
  }
  EXPECT_EQ(Record::from_json(R"({"step": 7.5})")->step(), std::nullopt);
}

TEST(JsonlWriter, WritesWholeLinesAtOnceAndMakesFolders) {
  const Scratch scratch;
  const auto path = scratch / "a/b/metrics.jsonl";
  JsonlWriter writer(path);
  writer.write(step_record(1));
  EXPECT_EQ(read_text(path), "{\"step\": 1, \"loss\": 1.0}\n");  // nothing waits in a buffer
  writer.write(step_record(4));
  EXPECT_EQ(read_text(path), "{\"step\": 1, \"loss\": 1.0}\n{\"step\": 4, \"loss\": 0.25}\n");
}

TEST(JsonlWriter, ANewRunChangesNoFileThatHoldsSomething) {
  const Scratch scratch;
  for (const std::string& content : {std::string("anything"), step_record(1).to_json() + "\n"}) {
    write_text(scratch / "m", content);
    const Error error = error_of([&] { JsonlWriter writer(scratch / "m"); });
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("choose another name, or remove the file first"),
              std::string::npos);
    EXPECT_EQ(read_text(scratch / "m"), content);
  }
  write_text(scratch / "empty", "");
  JsonlWriter(scratch / "empty").write(step_record(1));
  EXPECT_EQ(steps_of(scratch / "empty"), std::vector<std::int64_t>{1});
}

TEST(JsonlWriter, OneFileHasOneWriter) {
  const Scratch scratch;
  std::filesystem::create_symlink(scratch / "m", scratch / "link");
  std::optional<JsonlWriter> first(scratch / "m");
  for (const char* name : {"m", "link"}) {
    const Error fresh = error_of([&] { JsonlWriter writer(scratch / name); });
    EXPECT_EQ(fresh.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(fresh.what()).find("another job still writes to"), std::string::npos)
        << fresh.what();
    EXPECT_THROW(JsonlWriter(scratch / name, 5), Error) << "one that resumes";
  }
  first->write(step_record(1));
  EXPECT_EQ(steps_of(scratch / "m"), std::vector<std::int64_t>{1}) << "nobody cut anything off";
  first.reset();
  JsonlWriter(scratch / "m", 1).write(step_record(2));
  EXPECT_EQ(steps_of(scratch / "m"), (std::vector<std::int64_t>{1, 2}));
}

TEST(JsonlWriter, APipeNeedsAReader) {
  const Scratch scratch;
  const std::string pipe = (scratch / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const Error error = error_of([&] { JsonlWriter writer(pipe); });
  EXPECT_EQ(error.code(), ExitCode::kUsage);
  EXPECT_NE(std::string(error.what()).find("no process reads this pipe"), std::string::npos) << error.what();
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  JsonlWriter(pipe).write(step_record(1));
  char line[100] = {};
  EXPECT_GT(read(reader, line, sizeof line - 1), 0);
  EXPECT_EQ(line, step_record(1).to_json() + "\n");
  close(reader);
}

TEST(JsonlWriter, RefusesAStepTwice) {
  const Scratch scratch;
  JsonlWriter writer(scratch / "m");
  writer.write(step_record(2));
  EXPECT_THROW(writer.write(step_record(2)), Error);
  EXPECT_THROW(writer.write(step_record(1)), Error);
  EXPECT_THROW(writer.write(Record().set("loss", 1.0)), Error);
  EXPECT_THROW(writer.write(Record().set("step", 3.0)), Error);
  EXPECT_EQ(steps_of(scratch / "m"), std::vector<std::int64_t>{2});
}

TEST(JsonlWriter, ResumeCutsLaterStepsAndATornLine) {
  const Scratch scratch;
  const auto path = scratch / "m";
  {
    JsonlWriter writer(path);
    for (int step = 1; step <= 9; ++step) writer.write(step_record(step));
  }
  write_text(path, read_text(path) + R"({"step": 10, "lo)");
  JsonlWriter writer(path, 6);
  EXPECT_EQ(steps_of(path), (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_THROW(writer.write(step_record(6)), Error);
  writer.write(step_record(7));
  EXPECT_EQ(steps_of(path).back(), 7);
  EXPECT_EQ(steps_of(path).size(), 7u);
}

// A kill may end the file at any byte. Resuming from any step must leave each step at most once and only
// complete lines.
TEST(JsonlWriter, ResumeAfterATearAtEveryByte) {
  const Scratch scratch;
  const auto path = scratch / "m";
  std::string whole;
  for (int step = 1; step <= 5; ++step) whole += step_record(step).to_json() + "\n";
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    for (std::int64_t resume = 0; resume <= 6; ++resume) {
      write_text(path, whole.substr(0, size));
      JsonlWriter(path, resume).write(step_record(resume + 1));
      const std::string prefix = whole.substr(0, size);
      // A line is complete if it has its closing brace, with or without the line feed.
      const auto kept = std::min<std::int64_t>(resume, std::count(prefix.begin(), prefix.end(), '}'));
      std::string expected;
      for (std::int64_t step = 1; step <= kept; ++step) expected += step_record(step).to_json() + "\n";
      ASSERT_EQ(read_text(path), expected + step_record(resume + 1).to_json() + "\n")
          << size << " " << resume;
    }
  }
}

TEST(JsonlWriter, ResumeKeepsTheFileItself) {
  const Scratch scratch;
  write_text(scratch / "real", step_record(1).to_json() + "\n" + step_record(2).to_json() + "\n");
  std::filesystem::create_symlink(scratch / "real", scratch / "link");
  JsonlWriter(scratch / "link", 1).write(step_record(2));
  EXPECT_TRUE(std::filesystem::is_symlink(scratch / "link"));
  EXPECT_EQ(steps_of(scratch / "real"), (std::vector<std::int64_t>{1, 2}));
}

TEST(JsonlWriter, ResumeWithoutAFileBeginsOne) {
  const Scratch scratch;
  JsonlWriter(scratch / "new", 100).write(step_record(101));
  EXPECT_EQ(steps_of(scratch / "new"), std::vector<std::int64_t>{101});
}

TEST(JsonlWriter, DamageNamesFileAndLineAndTouchesNothing) {
  const Scratch scratch;
  const auto path = scratch / "m";
  const std::string one = step_record(1).to_json() + "\n";
  const std::string two = step_record(2).to_json() + "\n";
  for (const std::string& bad : {std::string("garbage\n"), std::string("\n"), std::string("{\"loss\": 1}\n"),
                                 one, std::string("{\"step\": 1.5}\n"), std::string(30, '\0') + "\n"}) {
    const std::string text = one + two + bad + step_record(3).to_json() + "\n";
    write_text(path, text);
    const Error error = error_of([&] { JsonlWriter(path, 3); });
    EXPECT_EQ(error.code(), ExitCode::kData);
    EXPECT_NE(std::string(error.what()).find(path.string() + ":3:"), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    EXPECT_EQ(read_text(path), text);
  }
}

TEST(JsonlWriter, DamageAfterTheCutDoesNotMatter) {
  const Scratch scratch;
  write_text(scratch / "m", step_record(1).to_json() + "\n" + step_record(2).to_json() + "\ngarbage\n");
  JsonlWriter(scratch / "m", 1).write(step_record(2));
  EXPECT_EQ(steps_of(scratch / "m"), (std::vector<std::int64_t>{1, 2}));
}

TEST(JsonlWriter, WritesToAPipe) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  JsonlWriter writer(fmt::format("/proc/self/fd/{}", ends[1]), 5);
  writer.write(step_record(6));
  char text[100] = {};
  ASSERT_GT(read(ends[0], text, sizeof text - 1), 0);
  EXPECT_EQ(std::string(text), step_record(6).to_json() + "\n");
  close(ends[0]);
  close(ends[1]);
}

TEST(JsonlWriter, AFullDiskLeavesWholeLines) {
  const Scratch scratch;
  JsonlWriter writer(scratch / "m");
  writer.write(step_record(1));
  const std::string before = read_text(scratch / "m");
  // A limit on the file size emulates a full disk: only a part of the line is written.
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small{before.size() + 10, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const Error error = error_of([&] { writer.write(step_record(2)); });
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(error.code(), ExitCode::kUsage);
  EXPECT_EQ(read_text(scratch / "m"), before);
  writer.write(step_record(2));  // the writer can go on
  EXPECT_EQ(steps_of(scratch / "m"), (std::vector<std::int64_t>{1, 2}));
}

TEST(JsonlWriter, UnwritablePathIsAUsageError) {
  const Scratch scratch;
  write_text(scratch / "file", "");
  EXPECT_EQ(error_of([&] { JsonlWriter(scratch / "file/m"); }).code(), ExitCode::kUsage);
  EXPECT_EQ(error_of([&] { JsonlWriter{scratch.path()}; }).code(), ExitCode::kUsage);
  EXPECT_EQ(error_of([&] { read_metrics(scratch / "missing", [](const Record&) {}); }).code(),
            ExitCode::kUsage);
}

}  // namespace
}  // namespace trireme
