// `trireme report`: writes an HTML page with charts of a run or of a scaling benchmark.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "core/metrics/file_writer.h"
#include "kernels/error.h"
#include "launcher/commands.h"
#include "launcher/flags.h"
#include "launcher/page.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

/// Returns the path of the run's metrics, or an empty path if there are none. Prefers metrics.jsonl to any
/// other .jsonl file.
fs::path metrics_in(const fs::path& directory) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().extension() == ".jsonl") found.push_back(entry.path());
  std::ranges::sort(found);
  if (fs::exists(directory / "metrics.jsonl")) return directory / "metrics.jsonl";
  if (found.size() > 1)
    fail(ExitCode::kUsage, "'{}' holds several files of metrics, {} and {}: give a folder of one run",
         directory.string(), found[0].filename().string(), found[1].filename().string());
  return found.empty() ? fs::path() : found.front();
}

std::string page_of(const fs::path& directory) {
  const std::string name = fs::absolute(directory).lexically_normal().string();
  if (fs::exists(directory / "scaling.csv"))
    return html_page("Scaling benchmark", name, scaling_report(directory / "scaling.csv"));
  const fs::path metrics = metrics_in(directory);
  const bool traced = !trace_files(directory).empty();
  if (metrics.empty() && !traced)
    fail(ExitCode::kUsage,
         "'{}' holds no metrics (*.jsonl), no trace-rank-N.json and no scaling.csv: give the folder that a "
         "run's "
         "--out or --metrics and --trace named, or that of cluster/scaling/run.sh",
         directory.string());
  return html_page("Training run", name,
                   run_report(metrics, traced ? read_traced_steps(directory) : std::vector<TracedRank>{}));
}

}  // namespace

int report_main(int argc, char** argv) {
  CLI::App app(
      "Writes one HTML page, which needs no other file, with pictures of a run (its metrics and, where it "
      "was traced, the timeline of a step) or of a scaling benchmark.",
      "trireme report");
  std::string directory, out;
  app.add_option("dir", directory,
                 "The run's folder (metrics *.jsonl; trace-rank-N.json, there or in trace/), or "
                 "one of cluster/scaling/run.sh")
      ->type_name("")
      ->required();
  app.add_option("--out", out, "The page to write (default DIR/report.html)")->type_name("FILE");
  if (!parse_flags(app, argc, argv)) return 0;
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored))
    fail(ExitCode::kUsage, "'{}' is not a folder: give that of a run", directory);
  const fs::path page = out.empty() ? fs::path(directory) / "report.html" : fs::path(out);
  const std::string text = page_of(directory);
  FileWriter file(page.string() + ".tmp", FileWriter::Mode::kDraft);
  file.write(text);
  file.rename(page);
  fmt::print("report: {}\n", page.string());
  return 0;
}

}  // namespace trireme
