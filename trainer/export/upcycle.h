// A dense model becomes a mixture of its own copies (sparse upcycling, Komatsuzaki et al. 2023): every expert
// starts as the dense feed-forward network, the router at random. The chosen weights sum to 1, so that the
// first forward pass is the dense model's.
#pragma once

#include <string>

#include "trainer/checkpoint/safetensors.h"
#include "trainer/export/tensor_list.h"

namespace switchyard {

struct UpcycleOptions {
  int64_t num_experts = 0;
  int64_t top_k = 0;
};

// "num_experts=8,top_k=2". What is wrong is Error{kUsage}.
UpcycleOptions parse_upcycle(const std::string& text);

// The mixture that comes of `dense`, which must have no MoE layers (Error{kUsage}).
ModelOptions upcycled(const ModelOptions& dense, const UpcycleOptions& upcycle);

bool is_router(const std::string& name);
// A router that no file has: as at the start of a training run with seed 1.
TensorSource new_router(const TensorSpec& spec, const ModelOptions& options);
// The dense model's tensor that `name`, no router, is a copy of.
std::string dense_twin(const std::string& name);

// The same for a dense checkpoint of ours (or a run: its newest), written to `to`, which must not exist or be
// an empty directory. On failure nothing is left there.
void upcycle_checkpoint(const fs::path& from, const fs::path& to, const UpcycleOptions& upcycle);

}  // namespace switchyard
