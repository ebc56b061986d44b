#include "launcher/svg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>
#include <string>

namespace trireme::svg {
namespace {

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

/// Returns the number that follows `before` in `text`.
double number_after(const std::string& text, const std::string& before) {
  const std::size_t at = text.find(before);
  return at == std::string::npos ? NAN : std::stod(text.substr(at + before.size()));
}

TEST(Svg, TextIsEscaped) {
  EXPECT_EQ(escaped("a<b> & \"c\"\n"), "a&lt;b&gt; &amp; &quot;c&quot;");
  EXPECT_EQ(count(line_chart({.title = "<script>", .x = "x", .y = "y"}, {}), "<script>"), 0);
}

TEST(Svg, FiguresHaveThreeDigits) {
  EXPECT_EQ(figure(0), "0");
  EXPECT_EQ(figure(0.012345), "0.0123");
  EXPECT_EQ(figure(12345.6), "12,346");
  EXPECT_EQ(figure(NAN), "-");
}

TEST(Svg, ALineForEachSeriesAndADotForEachPoint) {
  const std::string text =
      line_chart({.title = "t", .x = "ranks", .y = "samples / s", .powers = true},
                 {{"a", kBlue, {{1, 1}, {2, 2}, {4, 4}}}, {"b", kRed, {{1, 1}, {4, 2}}, true}});
  EXPECT_EQ(count(text, "<polyline"), 2);
  EXPECT_EQ(count(text, "<circle"), 5);
  for (const char* word : {">ranks<", ">samples / s<", ">a<", ">b<", ">1<", ">2<", ">4<"})
    EXPECT_GE(count(text, word), 1) << word;
  // Powers of two have equal distances, and larger values are higher.
  std::smatch found;
  ASSERT_TRUE(std::regex_search(
      text, found, std::regex("points=\"([0-9.]+),([0-9.]+) ([0-9.]+),([0-9.]+) ([0-9.]+),([0-9.]+)\"")));
  const auto value = [&](int i) { return std::stod(found[i]); };
  EXPECT_NEAR(value(3) - value(1), value(5) - value(3), 0.2);
  EXPECT_NEAR(2 * (value(2) - value(4)), value(4) - value(6), 0.3);
}

TEST(Svg, BarsStandOnEachOther) {
  const std::string text =
      bar_chart({"t", "x", "time (ms)"}, {"one"}, {{"low", kRed, {30}}, {"high", kTeal, {10}}});
  ASSERT_EQ(count(text, "<rect"), 2);
  const std::string second = text.substr(text.rfind("<rect"));
  const double low_top = number_after(text, "width=\"60.00\" height=\""),
               high = number_after(second, "height=\"");
  EXPECT_NEAR(low_top, 3 * high, 0.5);
  EXPECT_NEAR(number_after(second, "y=\"") + high, number_after(text.substr(text.find("<rect")), " y=\""),
              0.2);
}

TEST(Svg, TimelinesKeepProportions) {
  const std::string text =
      timeline({"t", "time (ms)", ""}, {{"rank 0", {{0, 10, kBlue, "first"}, {10, 40, kRed, "second"}}}},
               {{"sum", kRed}});
  const double first = number_after(text, "width=\""),
               second = number_after(text.substr(text.rfind("<rect")), "width=\"");
  EXPECT_NEAR(second, 3 * first, 0.1);
  EXPECT_EQ(count(text, "<title>second</title>"), 1);
}

TEST(Svg, NothingToShowIsStillAPicture) {
  for (const std::string& text :
       {line_chart({"t", "x", "y"}, {}), line_chart({"t", "x", "y"}, {{"a", kBlue, {}}}),
        line_chart({"t", "x", "y"}, {{"a", kBlue, {{5, 0}}}}),
        bar_chart({"t", "x", "y"}, {}, {{"a", kBlue, {}}}), timeline({"t", "x", ""}, {}, {})}) {
    EXPECT_EQ(text.find("nan"), std::string::npos) << text;
    EXPECT_EQ(text.find("inf"), std::string::npos) << text;
    EXPECT_TRUE(text.ends_with("</svg>\n"));
  }
}

}  // namespace
}  // namespace trireme::svg
