// Draws charts as SVG text for an HTML page, without scripts and without references to other files.
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

/// Returns the text escaped for HTML and SVG, also for use in attributes. Removes control characters.
std::string escaped(std::string_view text);
/// Returns the number with about three digits (0.0123, 1.5, 12,345), or "-" if it is not finite.
std::string figure(double value);

struct Axes {
  std::string title, x, y;  ///< title and labels of the axes, with units
  bool powers = false;      ///< x is logarithmic: 1, 2, 4, ... are equally spaced
  double y_most = 0;        ///< upper end of y; 0: a little above the largest value
  bool from_least = false;  ///< y begins a little below the smallest value, not at 0
};

struct Line {
  std::string name, color;
  std::vector<std::pair<double, double>> points;
  bool dashed = false;
};
/// Draws lines, and dots on lines with few points. With Axes::powers, every x value of a point has a tick.
std::string line_chart(const Axes& axes, const std::vector<Line>& lines);

struct Bars {
  std::string name, color;
  std::vector<double> values;  ///< one value for each label of bar_chart()
};
/// Draws a stacked bar for each label. Its segments are the values of `parts`, from the bottom up.
std::string bar_chart(const Axes& axes, const std::vector<std::string>& labels,
                      const std::vector<Bars>& parts);

struct Box {
  double begin = 0, end = 0;
  std::string color, text;  ///< the text appears when the pointer is over the box
  std::string caption;      ///< text in the box, if it fits
  bool thin = false;        ///< draw a thin line in the middle of the row
};
struct Row {
  std::string name;
  std::vector<Box> boxes;
};
/// Draws boxes on a common time axis, row by row. Each entry of `legend` is (name, color).
std::string timeline(const Axes& axes, const std::vector<Row>& rows,
                     const std::vector<std::pair<std::string, std::string>>& legend);

}  // namespace trireme::svg
