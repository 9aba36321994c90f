// Every tensor that a model has, by its global name. What a checkpoint, an import and
// an export are checked against.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trainer/model/options.h"

namespace switchyard {

struct TensorSpec {
  std::string name;  // "model.layers.0.mlp.experts.3.up_proj.weight"
  std::vector<int64_t> shape;
  bool training_only = false;  // the model's output does not depend on it; exports leave it out
};

// In the order of the forward pass. `options` are complete and consistent (check_model).
void for_each_tensor(const ModelOptions& options, const std::function<void(const TensorSpec&)>& visit);

struct ParameterCount {
  int64_t total = 0;
  int64_t active = 0;  // that one token meets: top_k of the experts
};
ParameterCount count_parameters(const ModelOptions& options);

// Adam's moments are named after their tensor, in shards of their own.
bool is_weight(const std::string& name);

}  // namespace switchyard
