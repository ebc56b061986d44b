// The report on one run: its loss, its throughput, and how its time divides among the parts of a step.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/metrics/jsonl.h"
#include "core/metrics/meter.h"
#include "kernels/error.h"
#include "launcher/page.h"
#include "launcher/svg.h"

namespace trireme {

namespace {

constexpr std::size_t kMostPoints = 1500;
constexpr std::size_t kBins = 40;

std::vector<Record> records_of(const std::filesystem::path& metrics) {
  std::vector<Record> records;
  read_metrics(metrics, [&](const Record& record) { records.push_back(record); });
  if (records.empty()) fail(ExitCode::kData, "{} has no line of metrics yet", metrics.string());
  return records;
}

double number(const Record& record, std::string_view key) { return record.number(key).value_or(NAN); }

double median_of(const std::vector<Record>& records, std::string_view key) {
  std::vector<double> values;
  for (const Record& record : records)
    if (const double value = number(record, key); std::isfinite(value)) values.push_back(value);
  if (values.empty()) return NAN;
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

svg::Line line_of(const std::vector<Record>& records, std::string_view key, const std::string& name,
                  const std::string& color) {
  svg::Line line{name, color, {}};
  const std::size_t stride = (records.size() + kMostPoints - 1) / kMostPoints;
  for (std::size_t i = 0; i < records.size(); ++i)
    if (const double value = number(records[i], key);
        std::isfinite(value) && (i % stride == 0 || i + 1 == records.size() || key.starts_with("eval")))
      line.points.emplace_back(static_cast<double>(*records[i].step()), value);
  return line;
}

/// Divides the steps of a run into stretches, for charts of medians over a stretch.
struct Stretches {
  std::vector<std::string> labels;
  std::vector<std::vector<Record>> records;

  /// Leaves out the first step: it allocates memory, and its bar would dwarf the others.
  explicit Stretches(const std::vector<Record>& all) {
    const std::size_t length = (all.size() + kBins - 1) / kBins;
    for (std::size_t begin = all.size() > 1 ? 1 : 0; begin < all.size(); begin += length) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(begin);
      records.emplace_back(first, first + static_cast<std::ptrdiff_t>(std::min(length, all.size() - begin)));
      labels.push_back(fmt::format("{}", *first->step()));
    }
  }
  svg::Bars bars(std::string_view key, const std::string& name, const char* color) const {
    svg::Bars bars{name, color, {}};
    for (const auto& part : records) {
      const double value = median_of(part, key);
      bars.values.push_back(std::isfinite(value) ? std::max(value, 0.0) : 0);
    }
    return bars;
  }
};

std::string time_pictures(const std::vector<Record>& records) {
  const Stretches stretches(records);
  std::vector<svg::Bars> parts;
  for (const auto& [key, name, color] :
       {std::tuple{"data_wait_ms", "wait for data", svg::kPurple},
        std::tuple{"forward_ms", "forward", svg::kTeal}, std::tuple{"backward_ms", "backward", svg::kBlue},
        std::tuple{"comm_exposed_ms", "exposed communication", svg::kRed},
        std::tuple{"optimizer_ms", "optimizer and the rest", svg::kGreen}})
    parts.push_back(stretches.bars(key, name, color));
  svg::Bars hidden = stretches.bars("comm_ms", "hidden behind compute", svg::kTeal);
  const svg::Bars exposed = stretches.bars("comm_exposed_ms", "exposed", svg::kRed);
  for (std::size_t i = 0; i < hidden.values.size(); ++i)
    hidden.values[i] = std::max(0.0, hidden.values[i] - exposed.values[i]);
  return html_section(
      "Where the time goes", "Medians over stretches of steps, on rank 0, without the first step.",
      html_pictures(
          {svg::bar_chart({"Parts of a step", "step", "time (ms)"}, stretches.labels, parts),
           svg::bar_chart({"Communication", "step", "time (ms)"}, stretches.labels, {exposed, hidden})}));
}

std::string cards_of(const std::vector<Record>& records) {
  const Record& last = records.back();
  std::vector<std::pair<std::string, std::string>> cards = {
      {"steps", svg::figure(static_cast<double>(*last.step()))},
      {"ranks", svg::figure(number(last, "world_size"))},
      {"samples a second (median)", svg::figure(median_of(records, "samples_per_s"))},
      {"ms a step (median)", svg::figure(median_of(records, "step_ms"))},
      {"loss at the end", svg::figure(number(last, "loss"))}};
  if (const double hidden =
          hidden_fraction(median_of(records, "comm_ms"), median_of(records, "comm_exposed_ms"));
      std::isfinite(hidden))
    cards.emplace_back("of communication hidden", fmt::format("{:.0f} %", 100 * hidden));
  for (auto record = records.rbegin(); record != records.rend(); ++record)
    if (const auto accuracy = record->number("eval_accuracy")) {
      cards.emplace_back("accuracy when last evaluated", fmt::format("{:.2f} %", 100 * *accuracy));
      break;
    }
  return html_cards(cards);
}

std::string metrics_report(const std::filesystem::path& metrics) {
  const std::vector<Record> records = records_of(metrics);
  std::vector<svg::Line> losses{line_of(records, "loss", "training", svg::kBlue)};
  if (svg::Line line = line_of(records, "eval_loss", "evaluation", svg::kOrange); !line.points.empty())
    losses.push_back(std::move(line));
  return cards_of(records) +
         html_section(
             "Training", metrics.string(),
             html_pictures(
                 {svg::line_chart({.title = "Loss", .x = "step", .y = "loss", .from_least = true}, losses),
                  svg::line_chart({"Throughput", "step", "samples / s"},
                                  {line_of(records, "samples_per_s", "", svg::kPurple)})})) +
         time_pictures(records);
}

}  // namespace

std::string run_report(const std::filesystem::path& metrics, const std::vector<TracedRank>& ranks) {
  std::string body;
  if (!metrics.empty()) body += metrics_report(metrics);
  if (!ranks.empty())
    body +=
        html_section("One step",
                     "A step of the usual length as traced. Numbers in boxes are those of buckets; hold the "
                     "pointer over a box for its times.",
                     html_step(ranks, 8));
  return body;
}

}  // namespace trireme
