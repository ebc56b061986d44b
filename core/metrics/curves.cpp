#include "core/metrics/curves.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/metrics/gnuplot.h"
#include "core/metrics/jsonl.h"
#include "core/metrics/meter.h"
#include "core/metrics/text.h"
#include "kernels/error.h"

namespace trireme {

namespace {

constexpr const char* kBlue = "#2563a8";
constexpr const char* kOrange = "#d9772b";
constexpr const char* kGreen = "#2f8f5b";
constexpr const char* kPurple = "#7a54a6";
constexpr const char* kTeal = "#1c8a9b";

/// Fewer points than this are drawn as dots that a line joins, and are not smoothed.
constexpr std::size_t kFewPoints = 40;
/// More points than this cannot be told apart at this width.
constexpr std::size_t kMaxPoints = 3000;

using Points = std::vector<std::pair<double, double>>;

/// The contents of a metrics file that the picture shows. Points are (step, value), and all are finite.
struct Run {
  Points loss, eval_loss, eval_accuracy, lr, throughput, hidden;
  Points world_sizes;  ///< the first world size, and each change of it
  double first_step = 0, last_step = 0;
};

void append(Points& points, double step, std::optional<double> value, double scale = 1) {
  if (value && std::isfinite(*value)) points.emplace_back(step, scale * *value);
}

Run read_run(const std::filesystem::path& metrics) {
  Run run;
  bool empty = true;
  read_metrics(metrics, [&](const Record& record) {
    const auto step = static_cast<double>(*record.step());
    if (std::exchange(empty, false)) run.first_step = step;
    run.last_step = step;
    append(run.loss, step, record.number("loss"));
    append(run.eval_loss, step, record.number("eval_loss"));
    append(run.eval_accuracy, step, record.number("eval_accuracy"), 100);
    append(run.lr, step, record.number("lr"));
    append(run.throughput, step, record.number("samples_per_s"));
    const double comm = record.number("comm_ms").value_or(0);
    append(run.hidden, step, hidden_fraction(comm, record.number("comm_exposed_ms").value_or(0)), 100);
    const double world = record.number("world_size").value_or(1);
    if (run.world_sizes.empty() || run.world_sizes.back().second != world)
      append(run.world_sizes, step, world);
  });
  if (empty) fail(ExitCode::kData, "cannot draw {}: it has no line of metrics yet", metrics.string());
  return run;
}

/// Mean over a window centred on each point, so that the curve does not lag behind. Near the ends it becomes
/// narrower, down to a quarter, which keeps them from both noise and slant.
Points window_mean(const Points& points, std::size_t half) {
  std::vector<double> sums(points.size() + 1, 0.0);
  for (std::size_t i = 0; i < points.size(); ++i) sums[i + 1] = sums[i] + points[i].second;
  Points means(points.size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t before = i, after = points.size() - 1 - i;
    const std::size_t reach = std::clamp(std::min(before, after), half / 4, half);
    const std::size_t begin = i - std::min(reach, before);
    const std::size_t end = i + std::min(reach, after) + 1;
    means[i] = {points[i].first, (sums[end] - sums[begin]) / static_cast<double>(end - begin)};
  }
  return means;
}

Points smoothed(const Points& points) {
  const std::size_t half = points.size() / 60 + 1;
  return window_mean(window_mean(points, half), half);  // twice: a box alone leaves corners
}

/// Keeps the lowest and the highest point of each stretch, so that spikes stay visible.
Points thinned(const Points& points) {
  if (points.size() <= kMaxPoints) return points;
  const std::size_t stretch = (2 * points.size() + kMaxPoints - 1) / kMaxPoints;
  Points kept;
  for (std::size_t begin = 0; begin < points.size(); begin += stretch) {
    const auto first = points.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = points.begin() + static_cast<std::ptrdiff_t>(std::min(begin + stretch, points.size()));
    auto [low, high] =
        std::minmax_element(first, last, [](const auto& a, const auto& b) { return a.second < b.second; });
    if (high < low) std::swap(low, high);
    kept.push_back(*low);
    if (low != high) kept.push_back(*high);
  }
  return kept;
}

Points scaled(Points points, double factor) {
  for (auto& point : points) point.second *= factor;
  return points;
}

/// From the lowest value to the highest, a spike aside, with some air.
std::pair<double, double> value_range(std::initializer_list<const Points*> all, bool from_zero) {
  std::vector<double> values;
  for (const Points* points : all) {
    for (const auto& point : *points) values.push_back(point.second);
  }
  if (values.empty()) return {0, 1};
  std::sort(values.begin(), values.end());
  const double low = from_zero ? std::min(0.0, values.front()) : values.front();
  const double usual = values[values.size() * 99 / 100] - low;
  const double high = std::min(values.back(), usual > 0 ? low + 4 * usual : values.back());
  const double air = high > low ? 0.06 * (high - low) : std::max(0.5 * std::fabs(high), 1e-3);
  return {from_zero && low == 0 ? 0 : low - air, high + air};
}

std::string plot_text(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';
    if (static_cast<unsigned char>(c) >= ' ') out += c;
  }
  return out + "'";
}

std::string counted(double count, std::string_view noun) {
  return fmt::format("{} {}{}", grouped_digits(std::llround(count)), noun, count == 1 ? "" : "s");
}

std::string step_label(double step, double last) {
  if (last >= 1e6) return fmt::format("{:g}M", step / 1e6);
  if (last >= 1e4) return fmt::format("{:g}k", step / 1e3);
  return grouped_digits(std::llround(step));
}

/// At most `most` + 1 round whole steps from `first` to `last`, as gnuplot wants them.
std::string step_tics(double first, double last, int most) {
  const double least = std::max((last - first) / most, 1.0);
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  double stride = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= least) stride = factor * power;
  }
  std::string tics;
  for (double at = std::ceil(first / stride) * stride; at <= last; at += stride) {
    tics += fmt::format("{}'{}' {:.0f}", tics.empty() ? "" : ", ", step_label(at, last), at);
  }
  return "(" + tics + ")";
}

/// Writes the gnuplot script, panel by panel.
class Script {
 public:
  Script(const Run& run, std::string_view title) : run_(run) {
    text_ =
        "set terminal pngcairo noenhanced size 1200,800 font 'DejaVu Sans,10' background '#ffffff'\n"
        "set encoding utf8\n"
        "set multiplot\n"
        "set border 3 lw 1 lc '#888888'\n"
        "set tics nomirror out scale 0.5 textcolor '#444444'\n"
        "set grid lt 1 lw 1 lc '#e8e8e8'\n"
        "set key top right Right samplen 1.6 spacing 1.15 textcolor '#333333'\n";
    text_ += fmt::format("set label 1 {} at screen 0.02,0.968 font ',15' tc '#222222'\n", plot_text(title));
    text_ +=
        fmt::format("set label 2 {} at screen 0.02,0.931 font ',10.5' tc '#666666'\n", plot_text(summary()));
    const double margin = run.last_step > run.first_step ? 0 : 1;
    text_ += fmt::format("set xrange [{}:{}]\n", run.first_step - margin, run.last_step + margin);
    text_ += "set xlabel 'step' offset 0,0.3 tc '#444444'\n";
  }

  /// Starts a panel; corners in fractions of the picture.
  void panel(std::string_view title, std::string_view y_label, double left, double bottom, double right,
             double top) {
    plots_.clear();
    text_ += fmt::format("set lmargin at screen {}\nset rmargin at screen {}\n", left, right);
    text_ += fmt::format("set bmargin at screen {}\nset tmargin at screen {}\n", bottom, top);
    text_ += fmt::format("set title {} font ',12' offset 0,-0.4 tc '#222222'\n", plot_text(title));
    text_ += fmt::format("set ylabel {} tc '#444444'\n", plot_text(y_label));
    const int most_tics = right - left > 0.3 ? 8 : 4;
    text_ += fmt::format("set xtics {}\n", step_tics(run_.first_step, run_.last_step, most_tics));
  }
  void y_range(std::pair<double, double> range) {
    text_ += fmt::format("set yrange [{}:{}]\n", range.first, range.second);
  }

  /// A quantity of every step: each light, and smoothed where there are enough.
  void per_step(const Points& points, const char* color, std::string_view name = "") {
    if (points.empty()) return;
    if (points.size() < kFewPoints) return few(points, color, name);
    const std::string light = fmt::format("#b0{}", color + 1);
    curve(thinned(points), fmt::format("with lines lw 1 lc '{}'", light),
          name.empty() ? "" : fmt::format("{}, each step", name));
    curve(thinned(smoothed(points)), fmt::format("with lines lw 2.5 lc '{}'", color),
          name.empty() ? "" : fmt::format("{}, smoothed", name));
  }
  /// A quantity that is drawn as it is.
  void line(const Points& points, const char* color, std::string_view name = "") {
    if (points.empty()) return;
    if (points.size() < kFewPoints) return few(points, color, name);
    curve(thinned(points), fmt::format("with lines lw 2.5 lc '{}'", color), name);
  }

  /// Dashed uprights where the number of ranks changed.
  void mark_world_sizes() {
    for (std::size_t i = 1; i < run_.world_sizes.size(); ++i) {
      const auto [step, size] = run_.world_sizes[i];
      text_ += fmt::format("set arrow from first {},graph 0 to first {},graph 1 nohead dt 2 lc '#999999'\n",
                           step, step);
      // The label stands on the side where there is room.
      const bool right = step - run_.first_step < 0.7 * (run_.last_step - run_.first_step);
      text_ +=
          fmt::format("set label {} at first {},graph 0.06 {} font ',8.5' tc '#666666'\n",
                      plot_text(counted(size, "rank")), step, right ? "offset 0.5,0" : "right offset -0.5,0");
    }
  }

  /// Draws the panel; `otherwise` stands in one that has nothing to show.
  void finish_panel(std::string_view otherwise) {
    if (plots_.empty()) {
      text_ += fmt::format("set label 3 {} at graph 0.5,0.5 center tc '#888888'\n", plot_text(otherwise));
      text_ += "unset ytics\n";
      plots_ = "NaN notitle";
    }
    text_ += "plot " + plots_ + "\n";
    // What belonged to this panel only; the heading is drawn once.
    text_ += "unset label\nunset arrow\nset ytics nomirror\n";
  }

  std::string finish() { return std::move(text_) + "unset multiplot\n"; }

 private:
  void few(const Points& points, const char* color, std::string_view name) {
    curve(points, fmt::format("with linespoints lw 2 pt 7 ps 0.8 lc '{}'", color), name);
  }

  void curve(const Points& points, const std::string& style, std::string_view name) {
    const std::string block = fmt::format("$data{}", blocks_++);
    text_ += block + " << END\n";
    for (const auto& [x, y] : points) text_ += fmt::format("{} {}\n", x, y);
    text_ += "END\n";
    const std::string title = name.empty() ? "notitle" : "title " + plot_text(name);
    plots_ += fmt::format("{}{} {} {}", plots_.empty() ? "" : ", ", block, style, title);
  }

  std::string summary() const {
    std::string text = counted(run_.last_step, "step");
    text += " · " + counted(run_.world_sizes.back().second, "rank");
    if (!run_.eval_accuracy.empty())
      text += fmt::format(" · accuracy {:.2f} %", run_.eval_accuracy.back().second);
    if (!run_.eval_loss.empty())
      text += fmt::format(" · evaluation loss {:.4g}", run_.eval_loss.back().second);
    return text;
  }

  const Run& run_;
  std::string text_;
  std::string plots_;
  int blocks_ = 0;
};

std::string compose(const Run& run, std::string_view title) {
  Script script(run, title);
  script.panel("Loss", "loss", 0.07, 0.475, 0.485, 0.865);
  script.y_range(value_range({&run.loss, &run.eval_loss}, false));
  script.per_step(run.loss, kBlue, "training");
  script.line(run.eval_loss, kOrange, "evaluation");
  script.finish_panel("no loss recorded");

  script.panel("Evaluation accuracy", "accuracy (%)", 0.56, 0.475, 0.975, 0.865);
  auto [lowest, highest] = value_range({&run.eval_accuracy}, false);
  script.y_range({lowest, std::min(highest, 101.0)});
  script.line(run.eval_accuracy, kOrange);
  script.finish_panel("not evaluated");

  script.panel("Learning rate", "learning rate", 0.07, 0.085, 0.315, 0.355);
  script.y_range(value_range({&run.lr}, true));
  script.line(run.lr, kGreen);
  script.finish_panel("no learning rate recorded");

  const bool thousands = !run.throughput.empty() && run.throughput.back().second >= 10000;
  const Points throughput = scaled(run.throughput, thousands ? 1e-3 : 1);
  script.panel("Throughput", thousands ? "thousand samples / s" : "samples / s", 0.395, 0.085, 0.645, 0.355);
  script.y_range(value_range({&throughput}, true));
  script.per_step(throughput, kPurple);
  script.mark_world_sizes();
  script.finish_panel("no throughput recorded");

  script.panel("Communication hidden behind compute", "hidden (%)", 0.725, 0.085, 0.975, 0.355);
  script.y_range({0, 104});
  script.per_step(run.hidden, kTeal);
  script.finish_panel("no communication");
  return script.finish();
}

}  // namespace

void draw_curves(const std::filesystem::path& metrics, const std::filesystem::path& picture,
                 std::string_view title, std::chrono::milliseconds deadline) {
  run_gnuplot(compose(read_run(metrics), title), picture, deadline);
}

}  // namespace trireme
