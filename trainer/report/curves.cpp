#include "trainer/report/curves.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace switchyard {
namespace {

// Index ranges of the points in each part of x that has any.
std::vector<std::pair<size_t, size_t>> parts_of(const std::vector<double>& x, size_t columns) {
  std::vector<std::pair<size_t, size_t>> parts;
  const double width = (x.back() - x.front()) / static_cast<double>(columns);
  const auto column_of = [&](size_t i) {
    return std::min(columns - 1, static_cast<size_t>((x[i] - x.front()) / width));
  };
  for (size_t begin = 0, end = 0; begin < x.size(); begin = end) {
    while (end < x.size() && column_of(end) == column_of(begin)) ++end;
    parts.emplace_back(begin, end);
  }
  return parts;
}

}  // namespace

Curve finite(const std::vector<double>& x, const std::vector<double>& y) {
  CHECK(x.size() == y.size(), x.size(), " and ", y.size());
  Curve curve;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(y[i])) continue;
    curve.x.push_back(x[i]);
    curve.y.push_back(y[i]);
  }
  return curve;
}

Curve smoothed(const Curve& curve, size_t half) {
  const size_t n = curve.y.size();
  std::vector<double> sums(n + 1);
  for (size_t i = 0; i < n; ++i) sums[i + 1] = sums[i] + curve.y[i];
  Curve result{curve.x, std::vector<double>(n)};
  for (size_t i = 0; i < n; ++i) {
    const size_t reach = std::min(half, i), end = std::min(n, i + reach + 1);
    result.y[i] = (sums[end] - sums[i - reach]) / static_cast<double>(end - (i - reach));
  }
  return result;
}

Curve extremes(const Curve& curve, size_t columns) {
  if (curve.x.size() <= 2 * columns) return curve;
  Curve result;
  for (const auto& [begin, end] : parts_of(curve.x, columns)) {
    const auto at = [&](size_t i) { return curve.y.begin() + static_cast<std::ptrdiff_t>(i); };
    const auto [low, high] = std::minmax_element(at(begin), at(end));
    for (const auto& point : {std::min(low, high), std::max(low, high)}) {
      result.x.push_back(curve.x[static_cast<size_t>(point - curve.y.begin())]);
      result.y.push_back(*point);
      if (low == high) break;
    }
  }
  return result;
}

Curve means(const Curve& curve, size_t columns) {
  if (curve.x.size() <= columns) return curve;
  Curve result;
  for (const auto& [begin, end] : parts_of(curve.x, columns)) {
    double x = 0, y = 0;
    for (size_t i = begin; i < end; ++i) {
      x += curve.x[i] / static_cast<double>(end - begin);
      y += curve.y[i] / static_cast<double>(end - begin);
    }
    result.x.push_back(x);
    result.y.push_back(y);
  }
  return result;
}

double quantile(std::vector<double> values, double fraction) {
  CHECK(!values.empty());
  const auto at = static_cast<std::ptrdiff_t>(fraction * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<size_t>(at)];
}

std::vector<double> nice_ticks(double low, double high, int count) {
  CHECK(high > low, low, " to ", high);
  const double rough = (high - low) / count, power = std::pow(10, std::floor(std::log10(rough)));
  const double factor = rough / power;
  const double step = power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10);
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string short_number(double value) {
  const double size = std::abs(value);
  if (size == 0) return "0";
  const auto scaled = [&](double unit, const char* name) {
    return fmt::format("{:.4g}{}", value / unit, name);
  };
  if (size >= 1e15 || size < 1e-3) {
    std::string text = fmt::format("{:.3e}", value);  // 3.000e-05
    const size_t e = text.find('e');
    std::string digits = text.substr(0, e), exponent = text.substr(e + 1);
    digits.erase(digits.find_last_not_of('0') + 1);
    if (digits.ends_with('.')) digits.pop_back();
    return fmt::format("{}e{}", digits, std::stoi(exponent));
  }
  if (size >= 1e12) return scaled(1e12, "T");
  if (size >= 1e9) return scaled(1e9, "G");
  if (size >= 1e6) return scaled(1e6, "M");
  if (size >= 1e4) return scaled(1e3, "k");
  return scaled(1, "");
}

}  // namespace switchyard
