// The report on a scaling benchmark: throughput, efficiency and communication as functions of the number of
// ranks.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "core/base/text_file.h"
#include "kernels/error.h"
#include "launcher/page.h"
#include "launcher/svg.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

/// One row of the CSV file.
struct ScalingRun {
  std::string mode, model, link, folder;
  double ranks = 0, hosts = 0, cores = 0, samples_per_s = 0, step_ms = 0, comm_ms = 0, comm_exposed_ms = 0,
         efficiency = 0, bytes = 0;
  std::string series() const { return mode + " " + link; }
  std::string label() const { return fmt::format("{} {:g}, {}", mode, ranks, link); }
};

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells(1);
  for (const char c : line)
    if (c == ',')
      cells.emplace_back();
    else if (c != '\r')
      cells.back() += c;
  return cells;
}

class Table {
 public:
  explicit Table(const fs::path& path) : path_(path), file_(read_text(path)) {
    if (!next()) fail(ExitCode::kData, "{}: is empty; run cluster/scaling/run.sh again", path.string());
    head_ = cells_;
  }
  bool next() {
    std::string line;
    do {
      if (!std::getline(file_, line)) return false;
      ++number_;
    } while (line.empty() || line == "\r");
    cells_ = cells_of(line);
    if (!head_.empty() && cells_.size() != head_.size())
      fail(ExitCode::kData, "{}:{}: {} cells under a head of {}", path_.string(), number_, cells_.size(),
           head_.size());
    return true;
  }
  const std::string& text(std::string_view column) const {
    const auto at = std::ranges::find(head_, column);
    if (at == head_.end())
      fail(ExitCode::kData, "{}:1: has no column '{}'; it must be a file of cluster/scaling/run.sh",
           path_.string(), column);
    return cells_[static_cast<std::size_t>(at - head_.begin())];
  }
  double number(std::string_view column, double least = 0) const {
    const std::string& cell = text(column);
    double value = 0;
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
    if (error != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value) || value < least)
      fail(ExitCode::kData, "{}:{}: {} is '{}', must be a number from {:g} on", path_.string(), number_,
           column, cell, least);
    return value;
  }

  ScalingRun run() const {
    return {text("mode"),
            text("model"),
            text("link"),
            text("run"),
            number("ranks", 1),
            number("hosts", 1),
            number("cores", 1),
            number("samples_per_s"),
            number("step_ms"),
            number("comm_ms"),
            number("comm_exposed_ms"),
            number("efficiency"),
            number("bytes_per_step")};
  }
  const std::vector<std::string>& cells() const { return cells_; }

 private:
  fs::path path_;
  std::istringstream file_;
  std::vector<std::string> head_, cells_;
  int number_ = 0;
};

using Runs = std::vector<ScalingRun>;

/// Returns a line for each series of runs. Each link has its own color, and lines of strong scaling are
/// dashed.
std::vector<svg::Line> lines_of(const Runs& runs, double ScalingRun::*value) {
  constexpr std::array kColors = {svg::kBlue, svg::kOrange, svg::kGreen, svg::kPurple, svg::kTeal, svg::kRed};
  std::vector<std::string> links;
  std::map<std::string, svg::Line> lines;
  for (const ScalingRun& run : runs) {
    if (std::ranges::find(links, run.link) == links.end()) links.push_back(run.link);
    const auto color =
        static_cast<std::size_t>(std::ranges::find(links, run.link) - links.begin()) % kColors.size();
    svg::Line& line = lines[run.series()];
    line.name = run.series();
    line.color = kColors[color];
    line.dashed = run.mode == "strong";
    line.points.emplace_back(run.ranks, run.*value);
  }
  std::vector<svg::Line> all;
  for (auto& [name, line] : lines) {
    std::ranges::sort(line.points);
    all.push_back(std::move(line));
  }
  return all;
}

/// Returns the line of perfect scaling, from the fastest run on the fewest ranks.
svg::Line ideal_of(const Runs& runs) {
  svg::Line ideal{"ideal", svg::kGrey, {}, true};
  std::set<double> ranks;
  for (const ScalingRun& run : runs) ranks.insert(run.ranks);
  double most = 0;
  for (const ScalingRun& run : runs)
    if (run.ranks == *ranks.begin()) most = std::max(most, run.samples_per_s);
  for (const double count : ranks) ideal.points.emplace_back(count, most * count / *ranks.begin());
  return ideal;
}

/// Returns the line of the efficiency that is possible if ranks have to share the machine's cores.
svg::Line cores_allow(const Runs& runs) {
  svg::Line line{"as cores allow", svg::kGrey, {}, true};
  std::set<double> ranks;
  for (const ScalingRun& run : runs) ranks.insert(run.ranks);
  const auto share = [&](double count) { return std::min(1.0, runs.front().cores / count); };
  for (const double count : ranks) line.points.emplace_back(count, share(count) / share(*ranks.begin()));
  return line;
}

std::string communication_picture(const Runs& runs) {
  std::vector<std::string> labels;
  svg::Bars exposed{"exposed", svg::kRed, {}}, hidden{"hidden behind compute", svg::kTeal, {}};
  for (const ScalingRun& run : runs) {
    if (run.ranks == 1) continue;
    labels.push_back(run.label());
    exposed.values.push_back(run.comm_exposed_ms);
    hidden.values.push_back(std::max(0.0, run.comm_ms - run.comm_exposed_ms));
  }
  return svg::bar_chart({"Communication in a step", "scaling, ranks, link", "time (ms)"}, labels,
                        {exposed, hidden});
}

std::string bytes_picture(const Runs& runs) {
  std::map<double, const ScalingRun*> by_ranks;
  for (const ScalingRun& run : runs) by_ranks.emplace(run.ranks, &run);
  std::vector<std::string> labels;
  svg::Bars sent{"sent by each host", svg::kBlue, {}};
  for (const auto& [ranks, run] : by_ranks) {
    labels.push_back(fmt::format("{:g} rank{} on {:g} host{}", ranks, ranks == 1 ? "" : "s", run->hosts,
                                 run->hosts == 1 ? "" : "s"));
    sent.values.push_back(2 * run->bytes * (run->hosts - 1) / run->hosts / 1e6);
  }
  return svg::bar_chart({"Bytes over the network in a step", "ranks", "MB"}, labels, {sent});
}

std::string model_section(const std::string& model, const Runs& runs, const fs::path& folder) {
  std::vector<svg::Line> throughput = lines_of(runs, &ScalingRun::samples_per_s);
  throughput.push_back(ideal_of(runs));
  std::vector<svg::Line> efficiency = lines_of(runs, &ScalingRun::efficiency);
  efficiency.push_back(cores_allow(runs));
  double most = 1;
  for (const ScalingRun& run : runs) most = std::max(most, run.efficiency);
  std::string content = html_pictures(
      {svg::line_chart({.title = "Throughput", .x = "ranks", .y = "samples / s", .powers = true}, throughput),
       svg::line_chart({.title = "Efficiency against the fewest ranks",
                        .x = "ranks",
                        .y = "efficiency",
                        .powers = true,
                        .y_most = 1.05 * most},
                       efficiency),
       communication_picture(runs), bytes_picture(runs)});
  // Show the run with the most ranks and, among those, the one with the most exposed communication.
  const auto shown = std::ranges::max_element(
      runs, {}, [](const ScalingRun& run) { return std::pair(run.ranks, run.comm_exposed_ms); });
  if (!trace_files(folder / shown->folder).empty())
    content += html_section(
        "",
        fmt::format("A step of {} scaling on {:g} ranks over {}.", shown->mode, shown->ranks, shown->link),
        html_step(read_traced_steps(folder / shown->folder), 8));
  const double megabytes = runs.front().bytes / 1e6;
  return html_section(
      model, fmt::format("{} MB of gradients and notes a rank and step.", svg::figure(megabytes)), content);
}

}  // namespace

std::string scaling_report(const fs::path& csv) {
  Table table(csv);
  const std::vector<std::string> head = table.cells();
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> models;
  std::map<std::string, Runs> by_model;
  double cores = 0, most_ranks = 0, fastest = 0;
  while (table.next()) {
    const ScalingRun run = table.run();
    if (!by_model.contains(run.model)) models.push_back(run.model);
    by_model[run.model].push_back(run);
    rows.push_back(table.cells());
    cores = run.cores;
    most_ranks = std::max(most_ranks, run.ranks);
    fastest = std::max(fastest, run.samples_per_s);
  }
  if (rows.empty())
    fail(ExitCode::kData, "{}: has no run in it; run cluster/scaling/run.sh again", csv.string());
  std::string body = html_cards({{"runs", svg::figure(static_cast<double>(rows.size()))},
                                 {"models", svg::figure(static_cast<double>(models.size()))},
                                 {"ranks at most", svg::figure(most_ranks)},
                                 {"cores of this machine", svg::figure(cores)},
                                 {"samples a second at most", svg::figure(fastest)}});
  if (most_ranks > cores)
    body += html_section(
        "",
        fmt::format("This machine has {:g} cores: more ranks than that share them, so efficiency "
                    "falls with {:g} divided by ranks whatever the network does.",
                    cores, cores),
        "");
  for (const std::string& model : models) body += model_section(model, by_model[model], csv.parent_path());
  return body + html_section("All runs",
                             "scaling.csv; each run's metrics and traces lie in the folder that it names.",
                             html_table(head, rows));
}

}  // namespace trireme
