#include "launcher/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>

#include "core/metrics/text.h"

namespace trireme::svg {

namespace {

constexpr double kWidth = 560, kHeight = 320, kWide = 1160;
constexpr double kLeft = 78, kRight = 16, kTop = 40, kBottom = 84;
constexpr double kTickLabel = 18;
constexpr double kLetter = 6.4;  // average width of a letter of the small font
constexpr std::size_t kFewPoints = 30;

/// Returns 1, 2 or 5 times a power of ten, such that about `count` steps of that size make up `range`.
double round_step(double range, int count) {
  const double least = range / count, power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= least * 0.999) return factor * power;
  return 10 * power;
}

std::string text_at(double x, double y, std::string_view text, std::string_view style = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, style, escaped(text));
}

std::string line_at(double x1, double y1, double x2, double y2, std::string_view style) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2,
                     style);
}

std::string box_at(double x, double y, double width, double height, const std::string& color,
                   std::string_view text, std::string_view style = "") {
  return fmt::format(
      "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" fill=\"{}\" "
      "{}><title>{}</title></rect>\n",
      x, y, std::max(width, 0.4), height, color, style, escaped(text));
}

/// A picture with a title, an area for the values, and a legend below it.
class Canvas {
 public:
  Canvas(const Axes& axes, double width, double height, double left = kLeft, double below = kTickLabel)
      : axes_(axes), width_(width), height_(height), left_(left), below_(below) {
    text_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" "
        "aria-label=\"{2}\" "
        "font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#444\">\n",
        width, height, escaped(axes.title));
    text_ += text_at(left_ - 50 > 12 ? 12 : left_ - 50, 20, axes.title,
                     "font-size=\"15\" font-weight=\"600\" fill=\"#1d2733\"");
    text_ += text_at((left_ + right()) / 2, bottom() + below_ + 18, axes.x, "text-anchor=\"middle\"");
    if (!axes.y.empty())
      text_ += fmt::format(
          "<text transform=\"translate(14 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
          (kTop + bottom()) / 2, escaped(axes.y));
  }

  double left() const { return left_; }
  double right() const { return width_ - kRight; }
  double bottom() const { return height_ - kBottom + kTickLabel - below_; }
  void set_x(double least, double most) { x_least_ = least, x_most_ = std::max(most, least + 1e-9); }
  double x(double value) const {
    return left_ + (position(value) - x_least_) / (x_most_ - x_least_) * (right() - left_);
  }
  double y(double value) const {
    return bottom() - (value - y_least_) / (y_most_ - y_least_) * (bottom() - kTop);
  }
  double position(double value) const { return axes_.powers ? std::log2(std::max(value, 1e-9)) : value; }
  void add(const std::string& text) { text_ += text; }

  void y_axis(double least, double most) {
    y_least_ = axes_.from_least ? least : 0;
    if (axes_.from_least) y_least_ -= 0.05 * (most - least);
    y_most_ = axes_.y_most > 0 ? axes_.y_most : most + 0.08 * (most - y_least_);
    if (!(y_most_ > y_least_)) y_most_ = y_least_ + 1;
    const double step = round_step(y_most_ - y_least_, 6);
    for (double at = std::ceil(y_least_ / step) * step; at <= y_most_ * (1 + 1e-9); at += step) {
      add(line_at(left_, y(at), right(), y(at), "stroke=\"#e6e9ed\""));
      add(text_at(left_ - 7, y(at) + 4, figure(std::fabs(at) < step / 1e6 ? 0 : at), "text-anchor=\"end\""));
    }
  }
  void base() { add(line_at(left_, bottom(), right(), bottom(), "stroke=\"#8a939c\"")); }
  void x_tick(double value, std::string_view label, bool slanted = false) {
    add(line_at(x(value), bottom(), x(value), bottom() + 5, "stroke=\"#8a939c\""));
    if (!slanted) return add(text_at(x(value), bottom() + 18, label, "text-anchor=\"middle\""));
    add(fmt::format(
        "<text transform=\"translate({:.1f} {:.1f}) rotate(-35)\" text-anchor=\"end\">{}</text>\n",
        x(value) + 4, bottom() + 16, escaped(label)));
  }
  /// Draws ticks at round values.
  void x_ticks(double least, double most) {
    const double step = round_step(std::max(most - least, 1e-9), 8);
    for (double at = std::ceil(least / step - 1e-9) * step; at <= most + step * 1e-9; at += step)
      x_tick(at, figure(std::fabs(at) < step / 1e6 ? 0 : at));
  }

  void legend(const std::vector<Line>& names) {
    double at = left_, line = bottom() + below_ + 38;
    for (const Line& name : names) {
      const double length = 30 + kLetter * static_cast<double>(name.name.size());
      if (at > left_ && at + length > width_) at = left_, line += 16;
      add(line_at(at, line - 4, at + 18, line - 4,
                  fmt::format("stroke=\"{}\" stroke-width=\"{}\" {}", name.color, name.dashed ? 2 : 4,
                              name.dashed ? "stroke-dasharray=\"5 4\"" : "")));
      add(text_at(at + 23, line, name.name));
      at += length + 8;
    }
  }
  std::string finish() { return std::move(text_) + "</svg>\n"; }

 private:
  const Axes axes_;
  const double width_, height_, left_;
  const double below_;  // height of the space for tick labels below the axis
  double x_least_ = 0, x_most_ = 1, y_least_ = 0, y_most_ = 1;
  std::string text_;
};

void draw_line(Canvas& canvas, const Line& line) {
  std::string path;
  for (const auto& [x, y] : line.points)
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ", canvas.x(x), canvas.y(y));
  canvas.add(fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" {}/>\n",
                         path, line.color, line.points.size() > 200 ? 1.2 : 2,
                         line.dashed ? "stroke-dasharray=\"5 4\"" : ""));
  if (line.points.size() > kFewPoints) return;
  for (const auto& [x, y] : line.points)
    canvas.add(fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.2\" fill=\"{}\"><title>{}: {}, {}</title></circle>\n",
        canvas.x(x), canvas.y(y), line.color, escaped(line.name), figure(x), figure(y)));
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= ' ')
      out += c;
  }
  return out;
}

std::string figure(double value) {
  if (!std::isfinite(value)) return "-";
  if (std::fabs(value) >= 1000) return grouped_digits(std::llround(value));
  return fmt::format("{:.3g}", value);
}

std::string line_chart(const Axes& axes, const std::vector<Line>& lines) {
  Canvas canvas(axes, kWidth, kHeight);
  double x_least = 1e300, x_most = -1e300, y_least = 1e300, y_most = -1e300;
  std::set<double> all_x;
  for (const Line& line : lines)
    for (const auto& [x, y] : line.points) {
      x_least = std::min(x_least, x), x_most = std::max(x_most, x);
      y_least = std::min(y_least, y), y_most = std::max(y_most, y);
      if (axes.powers) all_x.insert(x);
    }
  if (x_most < x_least) x_least = 0, x_most = 1, y_least = 0, y_most = 1;
  const double air = axes.powers || x_least == x_most
                         ? 0.04 * (canvas.position(x_most) - canvas.position(x_least)) + 0.05
                         : 0;
  canvas.set_x(canvas.position(x_least) - air, canvas.position(x_most) + air);
  canvas.y_axis(y_least, y_most);
  canvas.base();
  for (const double x : all_x) canvas.x_tick(x, figure(x));
  if (!axes.powers) canvas.x_ticks(x_least, x_most);
  for (const Line& line : lines) draw_line(canvas, line);
  if (lines.size() > 1 || (lines.size() == 1 && !lines[0].name.empty())) canvas.legend(lines);
  return canvas.finish();
}

std::string bar_chart(const Axes& axes, const std::vector<std::string>& labels,
                      const std::vector<Bars>& parts) {
  constexpr double kSlanted = 0.574;  // sine of the angle (35 degrees) of labels that are too long
  constexpr std::size_t kMostSlanted = 24;
  std::size_t longest = 1;
  for (const std::string& label : labels) longest = std::max(longest, label.size());
  const auto count = static_cast<double>(labels.size());
  const double room = (kWidth - kLeft - kRight) / count, length = kLetter * static_cast<double>(longest);
  const bool slanted = length + kLetter > room && labels.size() <= kMostSlanted && longest > 4;
  Canvas canvas(axes, kWidth, kHeight, kLeft,
                slanted ? std::max(kTickLabel, 16 + kSlanted * length) : kTickLabel);
  double most = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    double sum = 0;
    for (const Bars& part : parts) sum += part.values[i];
    most = std::max(most, sum);
  }
  canvas.set_x(0, count);
  canvas.y_axis(0, most);
  const double width = std::min(0.8 * room, 60.0);
  const auto every = slanted ? 1 : static_cast<std::size_t>(std::ceil((length + kLetter) / room));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double middle = canvas.x(static_cast<double>(i) + 0.5);
    double below = 0;
    for (const Bars& part : parts) {
      const double y = canvas.y(below + part.values[i]);
      if (part.values[i] > 0)
        canvas.add(box_at(middle - width / 2, y, width, canvas.y(below) - y, part.color,
                          fmt::format("{}, {}: {}", labels[i], part.name, figure(part.values[i]))));
      below += part.values[i];
    }
    if (i % every == 0) canvas.x_tick(static_cast<double>(i) + 0.5, labels[i], slanted);
  }
  canvas.base();
  std::vector<Line> names;
  for (const Bars& part : parts) names.push_back({part.name, part.color, {}});
  canvas.legend(names);
  return canvas.finish();
}

std::string timeline(const Axes& axes, const std::vector<Row>& rows,
                     const std::vector<std::pair<std::string, std::string>>& legend) {
  constexpr double kRow = 26;
  Canvas canvas(axes, kWide, kTop + kRow * static_cast<double>(rows.size()) + kBottom, 150);
  double most = 0;
  for (const Row& row : rows)
    for (const Box& box : row.boxes) most = std::max(most, box.end);
  canvas.set_x(0, most);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double top = kTop + kRow * static_cast<double>(i);
    canvas.add(text_at(canvas.left() - 8, top + 17, rows[i].name, "text-anchor=\"end\""));
    canvas.add(line_at(canvas.left(), top, canvas.right(), top, "stroke=\"#eef0f3\""));
    for (const Box& box : rows[i].boxes) {
      const double x = canvas.x(box.begin), width = canvas.x(box.end) - x;
      canvas.add(box_at(x, box.thin ? top + 11 : top + 3, width, box.thin ? 4 : kRow - 6, box.color, box.text,
                        box.thin ? "" : "rx=\"2\" stroke=\"#fff\" stroke-width=\"0.5\""));
      if (!box.caption.empty() && width > kLetter * static_cast<double>(box.caption.size()) + 6)
        canvas.add(text_at(x + width / 2, top + 17, box.caption,
                           "text-anchor=\"middle\" fill=\"#fff\" font-size=\"11\" pointer-events=\"none\""));
    }
  }
  canvas.base();
  canvas.x_ticks(0, most);
  std::vector<Line> names;
  for (const auto& [name, color] : legend) names.push_back({name, color, {}});
  canvas.legend(names);
  return canvas.finish();
}

}  // namespace trireme::svg
