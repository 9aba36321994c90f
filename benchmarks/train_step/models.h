// The models that training steps are timed on, by name, and what a step of one costs.
#pragma once

#include <string>
#include <vector>

#include "trainer/model/options.h"

namespace switchyard::bench {

struct NamedModel {
  std::string name;
  ModelOptions options;
  int64_t sequence_length, micro_batch, global_batch;  // batches in sequences
};

const std::vector<NamedModel>& models();
// Error{kUsage} that lists the names.
const NamedModel& find_model(const std::string& name);

// Matrix parameters that a token is multiplied with: projections, router, top_k experts, head. Not the
// embedding table.
int64_t active_matrix_parameters(const ModelOptions& options);
// Forward and backward of one token: 6 for each of those parameters, and causal attention, of which a token
// meets half the sequence on average: 6 * layers * heads * head_dim * sequence_length.
double flops_per_token(const ModelOptions& options, int64_t sequence_length);

}  // namespace switchyard::bench
