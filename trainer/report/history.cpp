#include "trainer/report/history.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "trainer/files/files.h"
#include "trainer/report/json_line.h"

namespace switchyard {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void each_line(const fs::path& path, const std::function<void(const JsonLine&)>& take) {
  const MappedFile file(path);
  std::string_view text = file.bytes();
  int64_t number = 0, last_step = -1;
  for (size_t end = text.find('\n'); end != text.npos; end = text.find('\n')) {
    const JsonLine line(path, ++number, text.substr(0, end));
    if (line.step() <= last_step) line.wrong(concat("step ", line.step(), " after step ", last_step));
    last_step = line.step();
    take(line);
    text.remove_prefix(end + 1);
  }
}

void add_scalars(RunHistory& to, const JsonLine& line) {
  to.step.push_back(static_cast<double>(line.step()));
  to.loss.push_back(line.number("loss"));
  to.aux_loss.push_back(line.number("aux_loss"));
  to.z_loss.push_back(line.number("z_loss"));
  to.grad_norm.push_back(line.number("grad_norm"));
  to.lr.push_back(line.number("lr"));
  to.tokens.push_back(line.number("tokens"));
  to.tokens_per_second.push_back(line.number("tokens_per_second"));
  to.step_seconds.push_back(line.number("step_seconds"));
  to.peak_memory_bytes.push_back(line.number("peak_memory_bytes"));
  const double seconds = to.step_seconds.back();
  to.exchange_share.push_back(seconds > 0 ? line.number("exchange_seconds") / seconds : kNan);
}

void add_layers(RunHistory& to, const JsonLine& line) {
  const nlohmann::json& layers = line.layers();
  const double none = layers.empty() ? kNan : 0;
  double worst = none, violation = none, entropy = none, dropped = none, dead = none;
  for (const nlohmann::json& layer : layers) {
    worst = std::max(worst, line.number(layer, "max_violation"));
    violation += line.number(layer, "max_violation") / static_cast<double>(layers.size());
    entropy += line.number(layer, "router_entropy") / static_cast<double>(layers.size());
    dropped = std::max(dropped, line.number(layer, "drop_rate"));
    dead += line.number(layer, "dead_experts");
  }
  to.worst_violation.push_back(worst);
  to.mean_violation.push_back(violation);
  to.router_entropy.push_back(entropy);
  to.drop_rate.push_back(dropped);
  to.dead_experts.push_back(dead);
}

void add_loads(RunHistory& to, const JsonLine& line) {
  const nlohmann::json& layers = line.layers();
  if (to.layers.empty()) {
    for (const nlohmann::json& layer : layers)
      to.layers.emplace_back(line.layer_number(layer), line.shares(layer).size());
  }
  if (layers.empty()) return;
  if (layers.size() != to.layers.size()) line.wrong("another number of layers than in the lines before");
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::vector<double> shares = line.shares(layers[i]);
    if (shares.size() != to.layers[i].experts())
      line.wrong("another number of experts than in the lines before");
    to.layers[i].add(line.step(), shares);
  }
}

}  // namespace

void LoadHistory::add(int64_t step, const std::vector<double>& shares) {
  if (first_step_ < 0) first_step_ = step;
  while ((step - first_step_) / bin_steps_ >= static_cast<int64_t>(kMostBins)) halve();
  const auto index = static_cast<size_t>((step - first_step_) / bin_steps_);
  if (bins_.size() <= index) bins_.resize(index + 1);
  Bin& bin = bins_[index];
  bin.sum.resize(experts_);
  bin.steps += 1;
  for (size_t e = 0; e < experts_; ++e) bin.sum[e] += static_cast<float>(shares[e]);
  if (last_.size() < kLastSteps) last_.resize(last_.size() + 1);
  last_[next_++ % kLastSteps] = shares;
}

// Stretches become twice as long.
void LoadHistory::halve() {
  bin_steps_ *= 2;
  for (size_t i = 1; i < bins_.size(); ++i) {
    Bin& to = bins_[i / 2];
    if (i % 2 == 0) {
      to = std::move(bins_[i]);
      continue;
    }
    to.steps += bins_[i].steps;
    to.sum.resize(experts_);
    for (size_t e = 0; e < bins_[i].sum.size(); ++e) to.sum[e] += bins_[i].sum[e];
  }
  bins_.resize((bins_.size() + 1) / 2);
}

std::vector<std::vector<double>> LoadHistory::over_time() const {
  std::vector<std::vector<double>> means;
  for (const Bin& bin : bins_) {
    means.emplace_back();
    if (bin.steps == 0) continue;
    for (const float sum : bin.sum) means.back().push_back(sum / static_cast<double>(bin.steps));
  }
  return means;
}

std::vector<double> LoadHistory::last() const {
  std::vector<double> mean(experts_);
  for (const auto& shares : last_) {
    for (size_t e = 0; e < experts_; ++e) mean[e] += shares[e] / static_cast<double>(last_.size());
  }
  return mean;
}

RunHistory read_history(const fs::path& run) {
  RunHistory history;
  const fs::path metrics = run / "metrics.jsonl", evaluations = run / "eval.jsonl";
  if (!fs::exists(metrics)) fail(Fault::kData, run.string(), ": no run: it has no metrics.jsonl");
  each_line(metrics, [&](const JsonLine& line) {
    add_scalars(history, line);
    add_layers(history, line);
    add_loads(history, line);
  });
  if (!fs::exists(evaluations)) return history;
  each_line(evaluations, [&](const JsonLine& line) {
    history.eval_step.push_back(static_cast<double>(line.step()));
    history.eval_loss.push_back(line.number("loss"));
    history.eval_bits_per_byte.push_back(line.number("bits_per_byte"));
  });
  return history;
}

}  // namespace switchyard
