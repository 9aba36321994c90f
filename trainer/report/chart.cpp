#include "trainer/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trainer/report/page.h"

namespace switchyard {
namespace {

constexpr double kSide = 1000;                        // of the drawing, in both directions
constexpr size_t kWideColumns = 500, kColumns = 250;  // more than this is not seen

struct Frame {
  double left, right, low, high;
  std::vector<double> x_ticks, y_ticks;

  double x(double value) const { return (value - left) / (right - left) * kSide; }
  double y(double value) const { return (high - value) / (high - low) * kSide; }
};

// Faint series may leave the frame with a few outliers; the others stay inside.
Frame frame_of(const Chart& chart) {
  Frame f{INFINITY, -INFINITY, INFINITY, -INFINITY, {}, {}};
  for (const Series& s : chart.series) {
    if (s.curve.x.empty()) continue;
    const bool faint = s.style == Series::Style::kFaint;
    f.left = std::min(f.left, s.curve.x.front());
    f.right = std::max(f.right, s.curve.x.back());
    f.low = std::min(f.low, quantile(s.curve.y, faint ? 0.005 : 0));
    f.high = std::max(f.high, quantile(s.curve.y, faint ? 0.995 : 1));
  }
  if (f.right <= f.left) f.right = f.left + 1;
  if (chart.from_zero) f.low = std::min(f.low, 0.0);
  const double flat = std::max(std::abs(f.low), std::abs(f.high)) * 1e-3;
  if (f.high - f.low <= flat * 1e-3) {
    f.low -= chart.from_zero && f.low == 0 ? 0 : flat;
    f.high += flat > 0 ? flat : 1;
  }
  f.y_ticks = nice_ticks(f.low, f.high, 5);
  f.low = f.y_ticks.front();
  f.high = f.y_ticks.back();
  f.x_ticks = nice_ticks(f.left, f.right, 6);
  std::erase_if(f.x_ticks,
                [&](double tick) { return tick < f.left || tick > f.right || tick != std::floor(tick); });
  return f;
}

std::string path_of(const Series& s, const Frame& f, size_t columns) {
  Curve curve = s.curve;
  if (s.style == Series::Style::kFaint) curve = extremes(curve, columns);
  if (s.style == Series::Style::kLine) curve = means(curve, columns);
  const bool dots = s.style == Series::Style::kDots || curve.x.size() == 1;
  std::string d;
  for (size_t i = 0; i < curve.x.size(); ++i) {
    const double y = std::clamp(f.y(curve.y[i]), 0.0, kSide);
    d += fmt::format("{}{:.4g},{:.4g}{}", i == 0 || dots ? "M" : "L", f.x(curve.x[i]), y, dots ? "h0" : "");
  }
  const char* style = s.style == Series::Style::kFaint ? "faint" : "line";
  return fmt::format("<path class=\"{} s{}\" {}d=\"{}\"/>", dots ? "dots" : style, s.color,
                     s.name.empty() ? "" : fmt::format("data-name=\"{}\" ", escaped(s.name)), d);
}

std::string drawing(const Chart& chart, const Frame& f) {
  std::string grid;
  for (const double tick : f.y_ticks) grid += fmt::format("M0,{:.4g}H1000", f.y(tick));
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">"
      "<path class=\"grid\" d=\"{}\"/>",
      escaped(chart.title + " over steps"), grid);
  for (const Series& s : chart.series) {
    if (!s.curve.x.empty()) svg += path_of(s, f, chart.wide ? kWideColumns : kColumns);
  }
  return svg + "</svg>";
}

std::string labels(const Frame& f) {
  std::string html;
  for (const double tick : f.y_ticks)
    html +=
        fmt::format("<span class=\"y\" style=\"top:{:.4g}%\">{}</span>", f.y(tick) / 10, short_number(tick));
  for (const double tick : f.x_ticks)
    html +=
        fmt::format("<span class=\"x\" style=\"left:{:.4g}%\">{}</span>", f.x(tick) / 10, short_number(tick));
  return html;
}

std::string legend(const Chart& chart) {
  const auto named = [](const Series& s) { return !s.name.empty() && !s.curve.x.empty(); };
  if (std::count_if(chart.series.begin(), chart.series.end(), named) < 2) return "";
  std::string html;
  for (const Series& s : chart.series) {
    if (!named(s)) continue;
    const bool dots = s.style == Series::Style::kDots;
    html += fmt::format("<span class=\"key{} s{}\">{}</span>", dots ? " dot" : "", s.color, escaped(s.name));
  }
  return html;
}

}  // namespace

std::string to_html(const Chart& chart) {
  const bool empty = std::all_of(chart.series.begin(), chart.series.end(),
                                 [](const Series& s) { return s.curve.x.empty(); });
  if (empty) return "";
  const Frame f = frame_of(chart);
  return fmt::format(
      "<figure class=\"chart{}\"><figcaption><b>{}</b> <span class=\"unit\">{}</span>{}</figcaption>"
      "<div class=\"plot\" data-frame=\"{:.9g} {:.9g} {:.9g} {:.9g}\">{}{}</div></figure>\n",
      chart.wide ? " wide" : "", escaped(chart.title), escaped(chart.unit), legend(chart), f.left, f.right,
      f.low, f.high, drawing(chart, f), labels(f));
}

}  // namespace switchyard
