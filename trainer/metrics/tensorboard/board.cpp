#include "trainer/metrics/tensorboard/board.h"

#include <fmt/format.h>

#include <algorithm>

#include "trainer/metrics/load_picture.h"
#include "trainer/metrics/tensorboard/event.pb.h"
#include "trainer/metrics/tensorboard/summaries.h"

namespace switchyard {
namespace {

using tensorboard::Summary;

const char* const kEvalLoss = "eval/loss";
const char* const kEvalBits = "eval/bits_per_byte";
const char* const kTrainLoss = "train/loss";
const char* const kThroughput = "throughput/tokens_per_second";
const char* const kWorstViolation = "moe/max_violation_max";

std::string layer_tag(int64_t layer, const char* name) {
  return fmt::format("moe/layer_{:02}/{}", layer, name);
}

void add_layers(Summary& to, const std::vector<LayerLoad>& layers) {
  double worst = 0, violation = 0, most_dropped = 0, dropped = 0, entropy = 0, dead = 0;
  for (const LayerLoad& load : layers) {
    add_scalar(to, layer_tag(load.layer, "max_violation"), load.max_violation());
    add_scalar(to, layer_tag(load.layer, "rank_overload"), load.rank_overload);
    add_scalar(to, layer_tag(load.layer, "router_entropy"), load.router_entropy());
    add_scalar(to, layer_tag(load.layer, "drop_rate"), load.drop_rate());
    add_scalar(to, layer_tag(load.layer, "dead_experts"), static_cast<double>(load.dead_experts()));
    worst = std::max(worst, load.max_violation());
    most_dropped = std::max(most_dropped, load.drop_rate());
    violation += load.max_violation();
    dropped += load.drop_rate();
    entropy += load.router_entropy();
    dead += static_cast<double>(load.dead_experts());
  }
  if (layers.empty()) return;
  const auto count = static_cast<double>(layers.size());
  add_scalar(to, kWorstViolation, worst);
  add_scalar(to, "moe/max_violation_mean", violation / count);
  add_scalar(to, "moe/drop_rate_max", most_dropped);
  add_scalar(to, "moe/drop_rate_mean", dropped / count);
  add_scalar(to, "moe/router_entropy_mean", entropy / count);
  add_scalar(to, "moe/dead_experts", dead);
}

std::vector<double> shares_of(const LayerLoad& load) {
  const auto pairs = static_cast<double>(std::max<int64_t>(1, load.pairs()));
  std::vector<double> shares;
  for (const int64_t n : load.assigned)
    shares.push_back(static_cast<double>(n) * static_cast<double>(load.assigned.size()) / pairs);
  return shares;
}

}  // namespace

TensorBoard::TensorBoard(std::filesystem::path folder, const Config& config, int64_t last_step)
    : folder_(std::move(folder)), config_(config), first_step_(last_step + 1) {
  std::error_code ignored;
  const auto status = std::filesystem::status(folder_, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_directory(status))
    fail(Fault::kUsage, folder_.string(), ": exists and is no directory");
}

void TensorBoard::take_back(const std::filesystem::path& folder, int64_t last_step) {
  std::error_code ignored;
  const bool empty = std::filesystem::is_empty(folder, ignored) || ignored;
  if (!empty) EventFile(folder, last_step + 1);
}

EventFile& TensorBoard::file() {
  if (!file_) {
    file_.emplace(folder_, first_step_);
    Summary summary;
    add_text(summary, "config", resolved_text(config_));
    add_hparams(summary, config_, {kTrainLoss, kEvalLoss, kEvalBits, kWorstViolation, kThroughput});
    file_->write(first_step_, summary);
  }
  return *file_;
}

void TensorBoard::step(const StepMetrics& m) {
  Summary summary;
  add_scalar(summary, kTrainLoss, m.loss);
  add_scalar(summary, "train/aux_loss", m.aux_loss);
  add_scalar(summary, "train/z_loss", m.z_loss);
  add_scalar(summary, "train/grad_norm", m.grad_norm);
  add_scalar(summary, "train/lr", m.lr);
  add_scalar(summary, kThroughput, m.tokens_per_second);
  add_scalar(summary, "throughput/step_seconds", m.step_seconds);
  add_scalar(summary, "throughput/exchange_share",
             m.step_seconds > 0 ? m.exchange_seconds / m.step_seconds : 0);
  add_scalar(summary, "throughput/exchange_bytes", static_cast<double>(m.exchange_bytes));
  add_scalar(summary, "throughput/gradient_bytes", static_cast<double>(m.gradient_bytes));
  add_scalar(summary, "throughput/parameter_bytes", static_cast<double>(m.parameter_bytes));
  add_scalar(summary, "memory/peak_bytes", static_cast<double>(m.peak_memory_bytes));
  add_layers(summary, m.layers);
  file().write(m.step, summary);
}

void TensorBoard::loads(const StepMetrics& m) {
  if (m.layers.empty()) return;
  Summary summary;
  std::vector<std::vector<double>> rows;
  for (const LayerLoad& load : m.layers) {
    add_bars(summary, layer_tag(load.layer, "load"), load.assigned,
             "Choices that each expert was given in this step, by its number");
    rows.push_back(shares_of(load));
  }
  add_image(summary, "moe/load", load_picture(rows, picture_cell(rows)),
            "A row for each MoE layer, a column for each expert. Orange: more than an even share, up to four "
            "times; "
            "blue: less, down to a quarter; grey: none");
  file().write(m.step, summary);
}

void TensorBoard::evaluation(int64_t step, double loss, std::optional<double> bits_per_byte) {
  Summary summary;
  add_scalar(summary, kEvalLoss, loss);
  if (bits_per_byte) add_scalar(summary, kEvalBits, *bits_per_byte);
  file().write(step, summary);
}

void TensorBoard::sample(int64_t step, const std::string& text) {
  Summary summary;
  add_text(summary, "samples", text);
  file().write(step, summary);
}

}  // namespace switchyard
