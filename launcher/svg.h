// Charts as SVG text that stands in an HTML page: no scripts, no files, nothing from elsewhere.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme::svg {

inline constexpr const char* kBlue = "#2563a8";
inline constexpr const char* kOrange = "#d9772b";
inline constexpr const char* kGreen = "#2f8f5b";
inline constexpr const char* kPurple = "#7a54a6";
inline constexpr const char* kTeal = "#1c8a9b";
inline constexpr const char* kRed = "#c2413b";
inline constexpr const char* kGrey = "#9aa3ad";

/// Text that may stand in HTML and SVG, in attributes too.
std::string escaped(std::string_view text);
/// About three digits: 0.0123, 1.5, 12,345.
std::string figure(double value);

struct Axes {
  std::string title, x, y;  ///< labels name the unit
  bool powers = false;      ///< x in equal steps for 1, 2, 4, ...
  double y_most = 0;        ///< 0: as the values need; y begins at 0, unless `from_least`
  bool from_least = false;
};

struct Line {
  std::string name, color;
  std::vector<std::pair<double, double>> points;
  bool dashed = false;
};
/// Lines, with dots where points are few. Every x of `powers` has its tick.
std::string line_chart(const Axes& axes, const std::vector<Line>& lines);

struct Bars {
  std::string name, color;
  std::vector<double> values;  ///< as `labels`
};
/// A bar for each label, each made of one part of every `parts`, from below.
std::string bar_chart(const Axes& axes, const std::vector<std::string>& labels,
                      const std::vector<Bars>& parts);

struct Box {
  double begin = 0, end = 0;
  std::string color, text;  ///< the text is shown under the pointer
  std::string caption;      ///< in the box, where it fits
  bool thin = false;        ///< a line in the middle of the row
};
struct Row {
  std::string name;
  std::vector<Box> boxes;
};
/// What went on when, row by row; `legend` is (name, color).
std::string timeline(const Axes& axes, const std::vector<Row>& rows,
                     const std::vector<std::pair<std::string, std::string>>& legend);

}  // namespace trireme::svg
