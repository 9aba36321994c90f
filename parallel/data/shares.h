// The optimizer's state, divided among the ranks that hold copies of the same parameters: replicated ones over
// the world, experts over their expert-data-parallel group. A step sums gradients into the part whose owner a
// rank is (reducer.h), updates that part, and gathers the new values. That moves no more bytes than summing
// all gradients everywhere, and in bf16 fewer.
#pragma once

#include "core/nn/parameters.h"
#include "parallel/mesh.h"

namespace switchyard {

const Axis& holders_of(Placement placement, const Mesh& mesh);

// For ParameterStore::materialize().
SegmentOptions segment_options(const Mesh& mesh, DType moments = DType::kF32);

// After an update: every rank's part of the values, to all. Returns the bytes of the values so gathered.
int64_t gather_values(const ParameterStore& store, const Mesh& mesh);

// Between an update and the next backward pass: whole runs [n] of every segment, collected from all parts.
// What is divided lies in the memory of the gradients until the next call or pass.
std::vector<Tensor> gather_state(const ParameterStore& store, ParameterStore::Kind kind, const Mesh& mesh);

}  // namespace switchyard
