#include "trainer/job/evaluation.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "trainer/metrics/step_metrics.h"
#include "trainer/together.h"

namespace switchyard {

namespace {

struct Sums {
  double loss = 0, tokens = 0, bytes = 0;
};

void add_batch(const Transformer& model, const Batch& batch, const Tokenizer* tokenizer, LoadRecorder* loads,
               Sums& sums) {
  ForwardContext context;
  context.loads = loads;
  sums.loss += model.loss(model.on_device(batch), context, 1).sum.to_vector<double>()[0];
  for (const int32_t target : batch.targets) {
    if (target < 0) continue;
    sums.tokens += 1;
    if (tokenizer != nullptr) sums.bytes += static_cast<double>(tokenizer->byte_length(target));
  }
}

}  // namespace

Evaluation evaluate(const Transformer& model, const Sampler& data, const Tokenizer* tokenizer,
                    int64_t micro_batch, int64_t max_samples, const Group& world, LoadRecorder* loads,
                    const std::function<bool()>& stopped) {
  NoGrad guard;
  int64_t samples = data.evaluation_samples();
  if (max_samples > 0) samples = std::min(samples, max_samples);
  const int64_t batches = (samples + micro_batch - 1) / micro_batch;
  // Ranks without a batch in the last round run one without targets: everyone enters the exchanges.
  const int64_t rounds = (batches + world->size() - 1) / world->size();
  Sums sums;
  for (int64_t i = 0; i < rounds; ++i) {
    if (any_rank(*world, stopped)) return {.bits_per_byte = std::nullopt, .layers = {}, .complete = false};
    const int64_t first = (i * world->size() + world->rank()) * micro_batch;
    const int64_t rows = std::clamp<int64_t>(samples - first, 0, micro_batch);
    Batch batch = data.evaluation_batch(std::min(first, samples - 1), std::max<int64_t>(rows, 1));
    if (rows == 0) std::fill(batch.targets.begin(), batch.targets.end(), -1);
    add_batch(model, batch, tokenizer, rows > 0 ? loads : nullptr, sums);
  }
  double totals[3] = {sums.loss, sums.tokens, sums.bytes};
  world->all_reduce(totals, 3, DType::kF64);
  Evaluation result{
      totals[0] / std::max(totals[1], 1.0), static_cast<int64_t>(totals[1]), std::nullopt, {}, true};
  if (!std::isfinite(result.loss)) fail(Fault::kNonFinite, "evaluation: the loss is ", std::abs(result.loss));
  if (totals[2] > 0) result.bits_per_byte = totals[0] / std::numbers::ln2 / totals[2];
  return result;
}

std::string to_json(const Evaluation& evaluation, int64_t step) {
  nlohmann::ordered_json json;
  if (step >= 0) json["step"] = step;
  json["loss"] = evaluation.loss;
  json["tokens"] = evaluation.tokens;
  if (evaluation.bits_per_byte) json["bits_per_byte"] = *evaluation.bits_per_byte;
  if (!evaluation.layers.empty()) {
    json["layers"] = nlohmann::ordered_json::array();
    for (const LayerLoad& load : evaluation.layers) json["layers"].push_back(layer_json(load));
  }
  return json.dump();
}

}  // namespace switchyard
