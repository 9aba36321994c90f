// Loss on held-out data, over all ranks.
#pragma once

#include <functional>
#include <optional>

#include "trainer/data/tokenizer.h"
#include "trainer/model/transformer.h"

namespace switchyard {

struct Evaluation {
  double loss = 0;                      // mean cross-entropy per target token, nats
  int64_t tokens = 0;                   // targets
  std::optional<double> bits_per_byte;  // where the tokenizer is known
  std::vector<LayerLoad> layers;        // what each MoE layer's experts were given, where that was asked for
  bool complete = true;                 // false: stopped before the end, and the figures mean nothing
};

// Every token of the data set but the first is a target once; at most `max_samples` sequences (0: all).
// Error{kNonFinite} where the loss is not finite. Collective; no gradients, no noise, no counters moved.
// `loads` gets this rank's loads of experts; what fills up the last sequence counts there as well. Ends
// early, on all ranks, once `stopped` says so on any.
Evaluation evaluate(const Transformer& model, const Sampler& data, const Tokenizer* tokenizer,
                    int64_t micro_batch, int64_t max_samples, const Group& world,
                    LoadRecorder* loads = nullptr, const std::function<bool()>& stopped = {});

// {"loss": .., "tokens": .., "bits_per_byte": .., "layers": [..]}, with "step" first if it is not negative.
std::string to_json(const Evaluation& evaluation, int64_t step = -1);

}  // namespace switchyard
