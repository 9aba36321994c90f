#include "trainer/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trainer/report/chart.h"
#include "trainer/report/facts.h"
#include "trainer/report/heat_map.h"
#include "trainer/report/page.h"

namespace switchyard {
namespace {

using Runs = std::vector<ReportedRun>;
using Values = std::vector<double> RunHistory::*;

// A series of a run and how it is drawn.
struct Quantity {
  std::string name, unit;
  Values values;
  bool from_zero = true;
  double factor = 1;
  // Each step's value thinly and the mean around it; with several runs only the mean of each.
  bool noisy = true;
};

Curve curve_of(const RunHistory& history, const Quantity& quantity) {
  Curve curve = finite(history.step, history.*quantity.values);
  for (double& y : curve.y) y *= quantity.factor;
  return curve;
}

void add_series(Chart& chart, const Runs& runs, const Quantity& quantity, int color) {
  for (size_t i = 0; i < runs.size(); ++i) {
    Curve curve = curve_of(runs[i].history, quantity);
    const bool one = runs.size() == 1;
    const int own = one ? color : static_cast<int>(i) % kColors;
    if (one && quantity.noisy) chart.series.push_back({"", curve, Series::Style::kFaint, own});
    if (quantity.noisy) curve = smoothed(curve, curve.x.size() / 50);
    chart.series.push_back({one ? quantity.name : runs[i].name, curve, Series::Style::kLine, own});
  }
}

double greatest(const Runs& runs, Values values) {
  double most = 0;
  for (const ReportedRun& run : runs) {
    for (const double value : run.history.*values) most = std::max(most, value);  // NaN never wins
  }
  return most;
}

std::string loss_chart(const Runs& runs) {
  const bool one = runs.size() == 1;
  Chart chart{.title = "Loss", .unit = "nats per token", .wide = true};
  add_series(chart, runs, {.name = "training", .unit = "", .values = &RunHistory::loss}, 0);
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunHistory& h = runs[i].history;
    chart.series.push_back({one ? "held-out" : "", finite(h.eval_step, h.eval_loss), Series::Style::kDots,
                            one ? 1 : static_cast<int>(i) % kColors});
  }
  return to_html(chart);
}

std::string chart_of(const Runs& runs, const Quantity& quantity) {
  Chart chart{.title = quantity.name, .unit = quantity.unit, .from_zero = quantity.from_zero};
  add_series(chart, runs, quantity, 0);
  return to_html(chart);
}

std::string memory_chart(const Runs& runs) {
  const bool large = greatest(runs, &RunHistory::peak_memory_bytes) >= 4.0 * (1 << 30);
  return chart_of(runs, {.name = "Peak memory",
                         .unit = std::string(large ? "GiB" : "MiB") + ", the rank that needs most",
                         .values = &RunHistory::peak_memory_bytes,
                         .factor = 1.0 / (large ? 1 << 30 : 1 << 20),
                         .noisy = false});
}

std::string curves(const Runs& runs) {
  const bool one = runs.size() == 1;
  const char* note = one ? "Thin: every step. Thick: the mean of the steps around it."
                         : "Means of the steps around each; dots are held-out losses.";
  std::string html =
      fmt::format("<h2>Training</h2>\n<p>{}</p>\n<div class=\"grid\">\n{}", note, loss_chart(runs));
  html += chart_of(runs, {.name = "Learning rate", .unit = "", .values = &RunHistory::lr, .noisy = false});
  html +=
      chart_of(runs, {.name = "Gradient norm", .unit = "before clipping", .values = &RunHistory::grad_norm});
  html += chart_of(
      runs, {.name = "Throughput", .unit = "tokens per second", .values = &RunHistory::tokens_per_second});
  if (greatest(runs, &RunHistory::exchange_share) > 0)
    html += chart_of(runs, {.name = "Expert exchange",
                            .unit = "% of a step, waiting included",
                            .values = &RunHistory::exchange_share,
                            .factor = 100});
  if (greatest(runs, &RunHistory::peak_memory_bytes) > 0) html += memory_chart(runs);
  return html + "</div>\n";
}

std::string imbalance_chart(const Runs& runs) {
  Chart chart{
      .title = "Load imbalance", .unit = "(greatest - mean) / mean of experts' loads", .from_zero = true};
  add_series(chart, runs, {.name = "worst layer", .unit = "", .values = &RunHistory::worst_violation}, 1);
  if (runs.size() == 1)
    add_series(chart, runs, {.name = "mean of layers", .unit = "", .values = &RunHistory::mean_violation}, 0);
  return to_html(chart);
}

std::string auxiliary_chart(const Runs& runs) {
  Chart chart{.title = "Auxiliary losses", .unit = "with their coefficients", .from_zero = true};
  if (greatest(runs, &RunHistory::aux_loss) > 0)
    add_series(chart, runs, {.name = "balance", .unit = "", .values = &RunHistory::aux_loss}, 0);
  if (runs.size() == 1 && greatest(runs, &RunHistory::z_loss) > 0)
    add_series(chart, runs, {.name = "router z", .unit = "", .values = &RunHistory::z_loss}, 1);
  return to_html(chart);
}

std::string expert_curves(const Runs& runs) {
  const auto dense = [](const ReportedRun& run) { return run.history.layers.empty(); };
  if (std::all_of(runs.begin(), runs.end(), dense)) return "";
  std::string html = "<h2>Experts</h2>\n<div class=\"grid\">\n" + imbalance_chart(runs);
  html += chart_of(runs, {.name = "Router entropy",
                          .unit = "nats, mean of layers",
                          .values = &RunHistory::router_entropy,
                          .from_zero = false});
  if (greatest(runs, &RunHistory::drop_rate) > 0)
    html += chart_of(runs, {.name = "Dropped choices",
                            .unit = "%, worst layer",
                            .values = &RunHistory::drop_rate,
                            .factor = 100});
  if (greatest(runs, &RunHistory::dead_experts) > 0)
    html += chart_of(runs, {.name = "Experts without a token",
                            .unit = "in a step, all layers",
                            .values = &RunHistory::dead_experts});
  return html + auxiliary_chart(runs) + "</div>\n";
}

std::string loads(const ReportedRun& run) {
  const RunHistory& h = run.history;
  if (h.layers.empty()) return "";
  const size_t last_steps = std::min(h.step.size(), LoadHistory::kLastSteps);
  std::vector<std::string> names;
  Rows last;
  std::string html = "<h2>Load of each expert</h2>\n" + heat_legend() + "<div class=\"grid\">\n";
  for (const LoadHistory& layer : h.layers) {
    names.push_back(fmt::format("layer {}", layer.layer()));
    last.push_back(layer.last());
    html += heat_over_time(names.back(), layer.over_time(), fmt::format("step {:.0f}", h.step.front()),
                           fmt::format("{:.0f}", h.step.back()));
  }
  const std::string title =
      last_steps == 1 ? "last step" : fmt::format("mean of the last {} steps", last_steps);
  return html + "</div>\n<h2>Layers and experts</h2>\n<p>1.00 is an even share.</p>\n" +
         heat_table(title, names, last);
}

std::string texts(const ReportedRun& run) {
  std::string html;
  if (!run.sample.empty())
    html += fmt::format("<h2>Sample</h2>\n<p>{}</p>\n<pre>{}</pre>\n", escaped(run.sample_name),
                        escaped(run.sample));
  if (!run.config_text.empty())
    html +=
        "<details><summary>Configuration</summary><pre>" + escaped(run.config_text) + "</pre></details>\n";
  return html;
}

std::string notices(const Runs& runs) {
  std::string html;
  for (const ReportedRun& run : runs) {
    for (const std::string& notice : run.notices)
      html += fmt::format("<p class=\"notice\">{}{}</p>\n", runs.size() > 1 ? escaped(run.name) + ": " : "",
                          escaped(notice));
    if (run.history.step.empty()) html += "<p class=\"notice\">No step is done yet.</p>\n";
  }
  return html;
}

}  // namespace

std::string report_html(const Runs& runs) {
  std::string title;
  for (const ReportedRun& run : runs) title += (title.empty() ? "" : ", ") + run.name;
  std::string html = "<h1>" + escaped(title) + "</h1>\n" +
                     (runs.size() == 1 ? facts_html(runs[0]) : facts_html(runs)) + notices(runs);
  html += curves(runs) + expert_curves(runs);
  for (const ReportedRun& run : runs) {
    if (runs.size() > 1) html += "<details><summary>" + escaped(run.name) + "</summary>\n";
    html += loads(run) + data_sets_html(run.data) + texts(run);
    if (runs.size() > 1) html += "</details>\n";
  }
  return page(title + " - Switchyard", html + "<footer>Written by switchyard report.</footer>\n");
}

}  // namespace switchyard
