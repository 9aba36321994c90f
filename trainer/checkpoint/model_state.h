// A ParameterStore's logical tensors to and from checkpoints. Names are global, so any layout reads what any
// other wrote.
//
//   weights      NAME                     F32 (the masters', where there are masters)
//   optimizer_m  adam_m.NAME              F32 or BF16, as they are kept; either is read as what is kept
//   optimizer_v  adam_v.NAME              the same
#pragma once

#include "core/nn/parameters.h"
#include "parallel/mesh.h"
#include "trainer/checkpoint/store.h"
#include "trainer/config.h"

namespace switchyard {

// All ranks. Each writes a share: those that hold a tensor take turns. `texts` (file name -> contents) is
// rank 0's. Atomic: an error or a kill leaves the previous checkpoints as they were. Between steps only: what
// the ranks have in parts is collected in the memory of the gradients.
void save_checkpoint(const fs::path& directory, int64_t step, const ParameterStore& store, const Mesh& mesh,
                     const std::map<std::string, std::string>& texts);

// What model.txtpb describes.
ModelOptions read_model_options(CheckpointReader& reader);

// Weights, buffers and, if asked for, moments of this rank's parameters. Strict: a missing, unknown or
// wrongly shaped tensor is Error{kData}; with kZero not where a new run adds a selection bias, gate noise or
// the like to a checkpoint's weights, or does without.
enum class MissingState : uint8_t { kRefuse, kZero };
void load_weights(CheckpointReader& reader, ParameterStore& store,
                  MissingState missing = MissingState::kRefuse);
void load_moments(CheckpointReader& reader, ParameterStore& store);

}  // namespace switchyard
