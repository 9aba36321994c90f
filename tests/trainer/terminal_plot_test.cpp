#include "trainer/metrics/terminal_plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

namespace switchyard {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(PlotCurve, AFallingLineRunsFromTheTopLeftToTheBottomRight) {
  // 2 x 2 characters are 4 x 8 dots; the line y = -x joins the corners.
  const auto lines = lines_of(plot_curve({0, 1, 2, 3}, {3, 2, 1, 0}, {.columns = 2, .rows = 2}));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0], "     2.25 \u2524\u28b3\u2840");
  EXPECT_EQ(lines[1], "     0.75 \u2524\u2800\u28a7");
  EXPECT_EQ(lines[2], "          \u2514\u2500\u2500");
}

TEST(PlotCurve, TheAxisNamesTheFirstAndTheLastX) {
  const auto lines = lines_of(plot_curve({10, 20, 500}, {1, 3, 2}, {.columns = 20, .rows = 3}));
  EXPECT_EQ(lines.back(), "           10               500");
}

TEST(PlotCurve, LabelsOfYAreTheMiddlesOfTheirRows) {
  const auto lines = lines_of(plot_curve({0, 1}, {0, 10}, {.columns = 10, .rows = 5}));
  EXPECT_EQ(lines[0].substr(0, 10), "        9 ");
  EXPECT_EQ(lines[4].substr(0, 10), "        1 ");
}

TEST(PlotCurve, AConstantIsALine) {
  const auto lines = lines_of(plot_curve({1, 2, 3}, {5, 5, 5}, {.columns = 3, .rows = 2}));
  EXPECT_NE(lines[0].find("\u2809\u2809\u2809"), std::string::npos);
  EXPECT_NE(lines[1].find("\u2800\u2800\u2800"), std::string::npos);
}

TEST(PlotCurve, PointsThatAreNotFiniteAreLeftOut) {
  const double nan = std::nan("");
  EXPECT_EQ(plot_curve({1, 2, 3, 4}, {4, nan, 2, 1}), plot_curve({1, 3, 4}, {4, 2, 1}));
}

TEST(PlotCurve, PointsThatGoBackOrCannotBeSummedAreLeftOut) {
  EXPECT_EQ(plot_curve({1, 3, 2, 4}, {4, 2, 9, 1}), plot_curve({1, 3, 4}, {4, 2, 1}));
  EXPECT_EQ(plot_curve({1, 9e18, 2, 3}, {4, 3, 2, 1}), plot_curve({1, 9e18}, {4, 3}));
  EXPECT_EQ(plot_curve({1, 2, 3, 1e308}, {4, -1e308, 2, 1}), plot_curve({1, 3}, {4, 2}));
}

TEST(PlotCurve, OnePointIsNoCurve) { EXPECT_EQ(plot_curve({1}, {2}), ""); }

TEST(LoadLines, AnEvenShareIsHalfABlock) {
  EXPECT_EQ(load_lines({0.5, 0.5}), std::vector<std::string>{"\u2584 1.00  \u2584 1.00"});
}

TEST(LoadLines, AnExpertWithoutTokensHasNoBlockAndOneWithFewHasTheLowest) {
  EXPECT_EQ(load_lines({0, 0.01, 0.99, 0}),
            std::vector<std::string>{"  0.00  \u2581 0.04  \u2588 3.96    0.00"});
}

TEST(LoadLines, ManyExpertsTakeSeveralLines) {
  EXPECT_EQ(load_lines(std::vector<double>(17, 1.0 / 17)).size(), 3U);
}

}  // namespace
}  // namespace switchyard
