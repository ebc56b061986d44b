#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "core/metrics/trace.h"
#include "kernels/error.h"
#include "tests/unit/core/metrics_scratch.h"

namespace trireme {
namespace {

using nlohmann::json;
using test::read_text;
using test::Scratch;
using test::write_text;

json parse(const std::filesystem::path& path) { return json::parse(read_text(path)); }

std::vector<json> events_of(const json& trace, const std::string& phase) {
  std::vector<json> events;
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("ph") == phase) events.push_back(event);
  }
  return events;
}

TEST(Trace, WritesSpansAndNames) {
  const Scratch scratch;
  Trace trace(scratch / "made", 3);
  const Trace::Track loader = trace.track("data 1");
  EXPECT_EQ(trace.track("data 1"), loader);
  EXPECT_EQ(trace.track("communication"), Trace::kCommunication);
  trace.span("forward", "step", 1'000'001, 3'500'002);
  trace.span("bucket 4", "all-reduce", 2'000'000, 2'000'000, Trace::kCommunication);
  trace.span("decode", "data", 7, 8, loader, {{"bytes", 4096}, {"share", 0.25}});
  trace.close();

  const json file = parse(scratch / "made/trace-rank-3.json");
  const auto spans = events_of(file, "X");
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0], json::parse(R"({"ph":"X","pid":3,"tid":0,"name":"forward","cat":"step",
                                      "ts":1000.001,"dur":2500.001})"));
  EXPECT_EQ(spans[1]["tid"], Trace::kCommunication);
  EXPECT_EQ(spans[1]["dur"], 0);
  EXPECT_EQ(spans[2]["tid"], 3);
  EXPECT_EQ(spans[2]["args"], json::parse(R"({"bytes":4096,"share":0.25})"));
  std::map<std::string, std::set<std::string>> names;
  for (const json& event : events_of(file, "M")) {
    EXPECT_EQ(event["pid"], 3);
    if (event["args"].contains("name")) names[event["name"]].insert(event["args"]["name"]);
  }
  EXPECT_EQ(names["process_name"], std::set<std::string>{"rank 3"});
  EXPECT_EQ(names["thread_name"], (std::set<std::string>{"compute", "communication", "data", "data 1"}));
  EXPECT_EQ(file["otherData"]["dropped_events"], 0);
}

TEST(Trace, OddNamesStayJson) {
  const Scratch scratch;
  const std::string odd = std::string("a\"b\\c\n\t\x01\x7f\xff\xc3\xa9", 12) + '\0' + "end";
  {
    Trace trace(scratch.path(), 0);
    trace.track(odd);
    trace.span(odd, odd, 1, 2);
    trace.span("", "", 1, 2);
    trace.span("next", "after", 5, 6);
  }
  const json file = parse(scratch / "trace-rank-0.json");
  const auto spans = events_of(file, "X");
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_TRUE(spans[0]["name"].get<std::string>().starts_with("a\"b\\c\n\t\x01"));
  EXPECT_TRUE(spans[0]["name"].get<std::string>().ends_with("end"));
  EXPECT_EQ(spans[1]["name"], "");
  EXPECT_EQ(spans[2]["name"], "next");  // the texts of earlier events do not change later ones
  EXPECT_EQ(spans[2]["cat"], "after");
}

TEST(Trace, ReadsBackWhatItWrote) {
  const Scratch scratch;
  Trace trace(scratch.path(), 0);
  trace.span("a", "compute", 1'000, 3'500);
  trace.span("b", "communication", 2'000, 2'500, Trace::kCommunication, {{"bytes", 12}});
  trace.close();
  std::vector<TraceSpan> spans;
  const std::vector files{Trace::file_path(scratch.path(), 0)};
  read_traces(files, [&](std::size_t file, const TraceSpan& span) {
    EXPECT_EQ(file, 0u);
    spans.push_back(span);
  });
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0].name, "a");
  EXPECT_EQ(spans[0].category, "compute");
  EXPECT_DOUBLE_EQ(spans[0].begin_us, 1);
  EXPECT_DOUBLE_EQ(spans[0].end_us, 3.5);
  EXPECT_EQ(spans[1].track, Trace::kCommunication);
  EXPECT_EQ(spans[1].args, (std::map<std::string, double>{{"bytes", 12}}));

  // A span without its time means that the file is damaged.
  std::string text = read_text(files[0]);
  text.replace(text.find("\"dur\""), 5, "\"due\"");
  write_text(files[0], text);
  EXPECT_THROW(read_traces(files, [](std::size_t, const TraceSpan&) {}), Error);
}

TEST(Trace, WithoutAFolderNothingHappens) {
  Trace trace;
  EXPECT_FALSE(trace.enabled());
  trace.span("a", "b", 1, 2);
  { const TraceScope scope(trace, "a", "b"); }
  trace.close();
}

TEST(Trace, ScopeTakesItsOwnTime) {
  const Scratch scratch;
  Trace trace(scratch.path(), 0);
  const std::int64_t before = Trace::now_ns();
  {
    const TraceScope scope(trace, "sleep", "test", Trace::kData);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  trace.close();
  const auto spans = events_of(parse(scratch / "trace-rank-0.json"), "X");
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0]["tid"], Trace::kData);
  EXPECT_GE(spans[0]["dur"].get<double>(), 20'000);
  EXPECT_GE(spans[0]["ts"].get<double>(), static_cast<double>(before) / 1000 - 1);
  EXPECT_LE(spans[0]["ts"].get<double>() + spans[0]["dur"].get<double>(),
            static_cast<double>(Trace::now_ns()) / 1000 + 1);
}

TEST(Trace, ManyThreadsLoseNothing) {
  const Scratch scratch;
  Trace trace(scratch.path(), 0);
  constexpr int kThreads = 20, kSpans = 500;  // more threads than buffers
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&trace, t] {
      const Trace::Track track = trace.track("worker " + std::to_string(t % 5));
      for (int i = 0; i < kSpans; ++i) trace.span(std::to_string(t * kSpans + i), "test", i, i + 1, track);
    });
  }
  for (std::thread& thread : threads) thread.join();
  trace.close();
  const json file = parse(scratch / "trace-rank-0.json");
  std::set<std::string> names;
  for (const json& event : events_of(file, "X")) names.insert(event["name"]);
  EXPECT_EQ(names.size(), std::size_t{kThreads * kSpans});
  std::size_t tracks = 0;
  for (const json& event : events_of(file, "M")) tracks += event["name"] == "thread_name";
  EXPECT_EQ(tracks, 3u + 5u);
}

TEST(Trace, ClosingWhileOthersRecordLeavesAWholeFile) {
  const Scratch scratch;
  Trace trace(scratch.path(), 0);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      const TraceScope scope(trace, "busy", "test");
      trace.track("late");
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  trace.close();
  const std::string text = read_text(scratch / "trace-rank-0.json");
  trace.close();
  stop = true;
  other.join();
  EXPECT_FALSE(events_of(json::parse(text), "X").empty());
  EXPECT_EQ(read_text(scratch / "trace-rank-0.json"), text);
}

TEST(Trace, FolderThatCannotBeMadeIsAUsageError) {
  const Scratch scratch;
  write_text(scratch / "file", "");
  try {
    Trace trace(scratch / "file/sub", 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
  }
}

TEST(MergeTraces, PutsRanksOfAHostOnOneAxis) {
  const Scratch scratch;
  for (int rank = 0; rank < 3; ++rank) {
    Trace trace(scratch.path(), rank);
    trace.span("work \"q\"", "test", 1000 * (rank + 1), 5000);
  }
  std::vector<std::filesystem::path> files;
  for (int rank = 0; rank < 3; ++rank) files.push_back(Trace::file_path(scratch.path(), rank));
  merge_traces(files, scratch / "trace.json");
  const json merged = parse(scratch / "trace.json");
  const auto spans = events_of(merged, "X");
  ASSERT_EQ(spans.size(), 3u);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(spans[rank]["pid"], rank);
    EXPECT_EQ(spans[rank]["ts"], rank + 1);  // not shifted, because ranks share a steady clock
  }
  std::size_t events = 0;
  for (const auto& file : files) events += parse(file)["traceEvents"].size();
  EXPECT_EQ(merged["traceEvents"].size(), events);
}

std::string trace_of(const std::string& clock, std::int64_t offset, int rank) {
  return fmt::format(
      "{{\"otherData\":{{\"steady_clock\":\"{}\",\"system_minus_steady_ns\":{}}},\"traceEvents\":[\n"
      "{{\"ph\":\"M\",\"pid\":{},\"tid\":0,\"name\":\"process_name\",\"args\":{{\"name\":\"x\"}}}},\n"
      "{{\"ts\":100.5,\"pid\":{},\"tid\":0,\"name\":\"w\",\"ph\":\"X\",\"dur\":1}}\n]}}\n",
      clock, offset, rank, rank);
}

TEST(MergeTraces, ShiftsOtherHostsByTheirSystemClocks) {
  const Scratch scratch;
  write_text(scratch / "0", trace_of("host a", 1'000'000'000'000'000'000, 0));
  write_text(scratch / "1", trace_of("host b", 1'000'000'000'000'250'000, 1));
  write_text(scratch / "2", trace_of("host a", 1'000'000'000'000'999'000, 2));
  const std::filesystem::path files[] = {scratch / "0", scratch / "1", scratch / "2"};
  merge_traces(files, scratch / "merged");
  const auto spans = events_of(parse(scratch / "merged"), "X");
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0]["ts"], 100.5);
  EXPECT_EQ(spans[1]["ts"], 350.5);  // 250 us
  EXPECT_EQ(spans[2]["ts"], 100.5);  // has the same steady clock, so the system clock does not matter
}

TEST(MergeTraces, DamageNamesFileAndLine) {
  const Scratch scratch;
  const std::string good = trace_of("a", 0, 0);
  const std::vector<std::pair<std::string, int>> cases = {
      {"", 1},
      {"{}\n", 1},
      {"{\"traceEvents\":[\n]}\n", 1},
      {good.substr(0, good.find("\n]}")) + "\n", 4},
      {good.substr(0, good.find("\"name\":\"w\"")), 3},
  };
  for (const auto& [text, line] : cases) {
    write_text(scratch / "t", text);
    const std::filesystem::path files[] = {scratch / "t"};
    try {
      merge_traces(files, scratch / "merged");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      EXPECT_NE(std::string(error.what()).find(fmt::format("{}:{}:", (scratch / "t").string(), line)),
                std::string::npos)
          << error.what();
    }
    EXPECT_FALSE(std::filesystem::exists(scratch / "merged"));
  }
  const std::filesystem::path missing[] = {scratch / "missing"};
  EXPECT_THROW(merge_traces(missing, scratch / "merged"), Error);
}

}  // namespace
}  // namespace trireme
