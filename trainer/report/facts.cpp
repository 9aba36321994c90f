#include "trainer/report/facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "trainer/export/tensor_list.h"
#include "trainer/job/progress.h"
#include "trainer/report/curves.h"
#include "trainer/report/page.h"

namespace switchyard {
namespace {

constexpr size_t kLastSteps = 20;

std::vector<double> finite_of(const std::vector<double>& values) {
  std::vector<double> kept;
  std::copy_if(values.begin(), values.end(), std::back_inserter(kept),
               [](double v) { return std::isfinite(v); });
  return kept;
}

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

std::string median_text(const std::vector<double>& values, double factor = 1) {
  const std::vector<double> kept = finite_of(values);
  return kept.empty() ? "" : short_number(std::round(factor * quantile(kept, 0.5)));
}

std::string steps_text(const ReportedRun& run) {
  const double last = run.history.step.empty() ? 0 : run.history.step.back();
  return run.config ? fmt::format("{:.0f} of {}", last, run.config->train.steps)
                    : fmt::format("{:.0f}", last);
}

std::string loss_text(const RunHistory& history) {
  std::vector<double> losses = finite_of(history.loss);
  if (losses.size() > kLastSteps) losses.erase(losses.begin(), losses.end() - kLastSteps);
  return losses.empty() ? "" : fmt::format("{:.3f}", sum(losses) / static_cast<double>(losses.size()));
}

std::string last_text(const std::vector<double>& values) {
  return values.empty() || !std::isfinite(values.back()) ? "" : fmt::format("{:.3f}", values.back());
}

std::string parameters_text(const ReportedRun& run) {
  if (!run.config || run.config->model.vocab_size == 0) return "";
  return short_number(static_cast<double>(count_parameters(run.config->model).total));
}

std::string tokens_text(const RunHistory& history) {
  const std::vector<double> tokens = finite_of(history.tokens);
  return tokens.empty() ? "" : short_number(tokens.back());
}

std::string time_text(const RunHistory& history) {
  return duration_text(sum(finite_of(history.step_seconds)));
}

std::string model_text(const Config& config) {
  const ModelOptions& model = config.model;
  const std::string width = fmt::format("width {}", model.hidden_size);
  if (!model.moe) return width;
  return fmt::format("{} experts, {} per token, {}", model.moe->num_experts, model.moe->top_k, width);
}

// "2026-11-23T01:30:41Z" for people.
std::string started_text(const std::string& started) {
  if (started.size() < 16) return "";
  return "last start " + started.substr(0, 10) + " " + started.substr(11, 5);
}

std::string tile(const std::string& label, const std::string& value, const std::string& more = "") {
  if (value.empty()) return "";
  return fmt::format("<div><span>{}</span><b>{}</b><small>{}</small></div>\n", label, escaped(value),
                     escaped(more));
}

std::string evaluation_tile(const RunHistory& h) {
  const std::string loss = last_text(h.eval_loss), bits = last_text(h.eval_bits_per_byte);
  if (loss.empty()) return "";
  return tile(
      "held-out loss", loss,
      fmt::format("{}at step {:.0f}", bits.empty() ? "" : bits + " bits per byte, ", h.eval_step.back()));
}

std::string machine_tile(const ReportedRun& run) {
  if (run.ranks == 0) return "";
  std::string value = fmt::format("{} rank{}", run.ranks, run.ranks == 1 ? "" : "s");
  if (run.config && run.config->parallel.expert > 1)
    value += fmt::format(", EP {}", run.config->parallel.expert);
  std::string more = run.device;
  if (!run.host.empty()) more += (more.empty() ? "" : ", ") + run.host;
  return tile("machine", value, more);
}

}  // namespace

std::string facts_html(const ReportedRun& run) {
  const RunHistory& h = run.history;
  const size_t mean_of = std::min(h.loss.size(), kLastSteps);
  std::string html = "<div class=\"facts\">\n" + tile("steps", steps_text(run));
  html += tile("training loss", loss_text(h),
               mean_of > 1 ? fmt::format("nats per token, mean of the last {}", mean_of) : "nats per token");
  html += evaluation_tile(h);
  if (const std::string parameters = parameters_text(run); !parameters.empty()) {
    const double active = static_cast<double>(count_parameters(run.config->model).active);
    html += tile("parameters", parameters, short_number(active) + " active per token");
    const int64_t layers = run.config->model.num_layers;
    html += tile("model", fmt::format("{} layer{}", layers, layers == 1 ? "" : "s"), model_text(*run.config));
  }
  html += tile("tokens", tokens_text(h),
               run.config ? fmt::format("{} sequences of {} a step", run.config->train.global_batch_size,
                                        run.config->train.sequence_length)
                          : "");
  const std::string share = median_text(h.exchange_share, 100);
  html += tile("tokens per second", median_text(h.tokens_per_second),
               h.layers.empty() || share.empty() ? "median" : "median; exchange " + share + "% of a step");
  if (!h.step.empty()) html += tile("time in steps", time_text(h), started_text(run.started));
  return html + machine_tile(run) + "</div>\n";
}

std::string facts_html(const std::vector<ReportedRun>& runs) {
  std::string html =
      "<div class=\"scroll\"><table>\n<tr><th>run</th><th>steps</th><th>training loss</th><th>held-out "
      "loss</th>"
      "<th>bits per byte</th><th>parameters</th><th>tokens</th><th>tokens/s</th><th>time</th></tr>\n";
  for (const ReportedRun& run : runs) {
    const RunHistory& h = run.history;
    html += fmt::format("<tr><th>{}</th>", escaped(run.name));
    for (const std::string& cell :
         {steps_text(run), loss_text(h), last_text(h.eval_loss), last_text(h.eval_bits_per_byte),
          parameters_text(run), tokens_text(h), median_text(h.tokens_per_second), time_text(h)})
      html += "<td>" + (cell.empty() ? "–" : escaped(cell)) + "</td>";
    html += "</tr>\n";
  }
  return html + "</table></div>\n";
}

}  // namespace switchyard
