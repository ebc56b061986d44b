#include "launcher/traced_steps.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "kernels/error.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

/// Returns the number between `before` and `after` if `text` consists of exactly these three.
std::optional<int> number_in(std::string_view text, std::string_view before, std::string_view after) {
  if (!text.starts_with(before) || !text.ends_with(after)) return std::nullopt;
  text = text.substr(0, text.size() - after.size()).substr(before.size());
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

TracedRank steps_of(std::vector<TraceSpan> spans, const fs::path& file) {
  // Sort by beginning. If two spans begin together, the longer one comes first: a step precedes its parts.
  std::ranges::stable_sort(spans, [](const TraceSpan& a, const TraceSpan& b) {
    return a.begin_us != b.begin_us ? a.begin_us < b.begin_us : a.end_us > b.end_us;
  });
  TracedRank steps;
  for (const TraceSpan& span : spans)
    if (const auto step = number_in(span.name, "step ", ""); step && span.category == "step")
      steps.push_back({*step, span.begin_us, span.end_us, {}});
  if (steps.empty())
    fail(ExitCode::kData, "{}: has no step in it; trace a run of some steps with --trace DIR", file.string());
  auto step = steps.begin();
  for (TraceSpan& span : spans) {
    while (step != steps.end() && span.begin_us >= step->end_us) ++step;
    if (step == steps.end()) break;
    if (span.category != "step" && enqueued_us(span) >= step->begin_us)
      step->spans.push_back(std::move(span));
  }
  return steps;
}

}  // namespace

double enqueued_us(const TraceSpan& call) {
  const auto queued = call.args.find("queued_us");
  return call.begin_us - (queued == call.args.end() ? 0 : queued->second);
}

bool is_sum(const TraceSpan& span) {
  return span.category == "communication" && span.args.contains("queued_us") &&
         (span.name.starts_with("sum ") || span.name.starts_with("all_reduce"));
}

std::vector<fs::path> trace_files(const fs::path& directory) {
  std::vector<std::pair<int, fs::path>> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored))
    if (const auto rank = number_in(entry.path().filename().string(), "trace-rank-", ".json"))
      found.emplace_back(*rank, entry.path());
  if (found.empty() && fs::is_directory(directory / "trace", ignored))
    return trace_files(directory / "trace");
  std::ranges::sort(found);
  std::vector<fs::path> files;
  for (auto& [rank, path] : found) {
    if (rank != static_cast<int>(files.size()))
      fail(ExitCode::kData, "{}: is there, but that of rank {} is not; trace the run again", path.string(),
           files.size());
    files.push_back(std::move(path));
  }
  return files;
}

std::vector<TracedRank> read_traced_steps(const fs::path& directory) {
  const std::vector<fs::path> files = trace_files(directory);
  if (files.empty())
    fail(ExitCode::kUsage, "'{}' holds no trace-rank-N.json: give the folder that a run's --trace named",
         directory.string());
  std::vector<std::vector<TraceSpan>> spans(files.size());
  read_traces(files, [&](std::size_t rank, const TraceSpan& span) { spans[rank].push_back(span); });
  std::vector<TracedRank> ranks;
  for (std::size_t i = 0; i < files.size(); ++i) ranks.push_back(steps_of(std::move(spans[i]), files[i]));
  return ranks;
}

}  // namespace trireme
