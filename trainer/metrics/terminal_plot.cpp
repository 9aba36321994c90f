#include "trainer/metrics/terminal_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace switchyard {
namespace {

// Dots on a grid of characters: U+2800 and a bit for each of the 2 x 4 dots.
class Braille {
 public:
  explicit Braille(PlotSize size) : size_(size), cells_(static_cast<size_t>(size.columns * size.rows)) {}

  int width() const { return 2 * size_.columns; }
  int height() const { return 4 * size_.rows; }

  void set(int x, int y) {  // from the top left
    static constexpr uint8_t kBits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    cells_[static_cast<size_t>(y / 4 * size_.columns + x / 2)] |= kBits[y % 4][x % 2];
  }

  // From the last column to this one: every row between the two, half of them in each column.
  void join(int x, int from, int to) {
    const int middle = (from + to) / 2;
    for (int y = std::min(from, middle); y <= std::max(from, middle); ++y) set(x - 1, y);
    for (int y = std::min(middle, to); y <= std::max(middle, to); ++y) set(x, y);
  }

  std::string row(int r) const {
    std::string text;
    for (int c = 0; c < size_.columns; ++c) {
      const uint8_t bits = cells_[static_cast<size_t>(r * size_.columns + c)];
      text += '\xE2';
      text += static_cast<char>(0xA0 | (bits >> 6));
      text += static_cast<char>(0x80 | (bits & 0x3F));
    }
    return text;
  }

 private:
  PlotSize size_;
  std::vector<uint8_t> cells_;
};

// Where each of `columns` columns of dots lies: the mean of its points, or between its neighbours where it
// has none.
std::vector<double> column_means(const std::vector<double>& x, const std::vector<double>& y, int columns) {
  std::vector<double> sum(columns), count(columns);
  for (size_t i = 0; i < x.size(); ++i) {
    const auto c = static_cast<size_t>((x[i] - x.front()) / (x.back() - x.front()) * (columns - 1) + 0.5);
    sum[c] += y[i];
    count[c] += 1;
  }
  int last = 0;  // the first column has the first point, and the last column the last
  for (int c = 0; c < columns; ++c) {
    if (count[c] == 0) continue;
    sum[c] /= count[c];
    for (int gap = last + 1; gap < c; ++gap)
      sum[gap] = sum[last] + (sum[c] - sum[last]) * (gap - last) / (c - last);
    last = c;
  }
  return sum;
}

std::string curve_text(const Braille& dots, PlotSize size, double low, double high) {
  std::string text;
  for (int r = 0; r < size.rows; ++r) {
    // A label stands for the middle of its row.
    const double value = high - (high - low) * (r + 0.5) / size.rows;
    const bool labelled = r % 3 == 0 || r + 1 == size.rows;
    text += (labelled ? fmt::format("{:>9.4g} \u2524", value) : fmt::format("{:>9} \u2502", "")) +
            dots.row(r) + "\n";
  }
  return text;
}

}  // namespace

std::string plot_curve(const std::vector<double>& x, const std::vector<double>& y, PlotSize size) {
  CHECK(x.size() == y.size() && size.columns > 0 && size.rows > 0, x.size(), " and ", y.size());
  // A damaged file may hold anything; larger values' sums and differences would not be finite.
  constexpr double kLargest = 1e100;
  const auto drawable = [](double value) { return std::abs(value) <= kLargest; };  // NaN is not
  std::vector<double> xs, ys;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!drawable(x[i]) || !drawable(y[i]) || (!xs.empty() && x[i] < xs.back())) continue;
    xs.push_back(x[i]);
    ys.push_back(y[i]);
  }
  if (xs.size() < 2 || xs.front() >= xs.back()) return "";

  Braille dots(size);
  const std::vector<double> means = column_means(xs, ys, dots.width());
  const auto [low, high] = std::minmax_element(means.begin(), means.end());
  const double range = *high > *low ? *high - *low : 1;
  int previous = -1;
  for (int c = 0; c < dots.width(); ++c) {
    const int r = static_cast<int>(std::lround((*high - means[c]) / range * (dots.height() - 1)));
    if (previous < 0)
      dots.set(c, r);
    else
      dots.join(c, previous, r);
    previous = r;
  }
  std::string axis = "\u2514";
  for (int c = 0; c < size.columns; ++c) axis += "\u2500";
  const std::string left = fmt::format("{:.6g}", xs.front()), right = fmt::format("{:.6g}", xs.back());
  const int gap = std::max(1, size.columns - static_cast<int>(left.size() + right.size()));
  return curve_text(dots, size, *high - range, *high) + fmt::format("{:>9} {}\n", "", axis) +
         fmt::format("{:>11}{}{:>{}}{}\n", "", left, "", gap, right);
}

std::vector<std::string> load_lines(const std::vector<double>& load, int per_line) {
  static const char* const kBlocks[] = {" ",      "\u2581", "\u2582", "\u2583", "\u2584",
                                        "\u2585", "\u2586", "\u2587", "\u2588"};
  std::vector<std::string> lines;
  for (size_t e = 0; e < load.size(); ++e) {
    if (e % static_cast<size_t>(per_line) == 0) lines.emplace_back();
    const double share = load[e] * static_cast<double>(load.size());
    const int height = share > 0 ? std::clamp(static_cast<int>(std::lround(share * 4)), 1, 8) : 0;
    lines.back() += fmt::format("{}{} {:.2f}", lines.back().empty() ? "" : "  ", kBlocks[height], share);
  }
  return lines;
}

}  // namespace switchyard
