// Collectives over tensors, and the differentiable ones.
//
// The objective is the sum of the ranks' losses, so the gradient of each collective is its transpose:
//   all_reduce <-> all_reduce      all_gather <-> reduce_scatter      broadcast <-> reduce
//   all_to_all(send, recv) <-> all_to_all(recv, send)
// CUDA tensors go through a group that is not on_device() by way of the host.
#pragma once

#include <vector>

#include "core/autograd.h"
#include "parallel/comm/communicator.h"

namespace switchyard {

// In place, on the tensor's memory.
void all_reduce_in_place(const Tensor& x, const Group& group, ReduceOp op = ReduceOp::kSum);
void broadcast_in_place(const Tensor& x, const Group& group, int root);
// x is size() equal runs of elements, one for each rank. Into this rank's comes the sum of everybody's of that
// place, and the others are lost; all_gather brings everybody's own back to all.
void reduce_scatter_in_place(const Tensor& x, const Group& group);
void all_gather_in_place(const Tensor& x, const Group& group);

using Counts = std::vector<int64_t>;
// Rows of dim 0: block i (send[i] rows) goes to rank i; the result has sum(recv) rows.
Tensor exchange_rows(const Tensor& x, const Counts& send, const Counts& recv, const Group& group);

Var all_reduce(const Var& x, const Group& group);
Var all_gather(const Var& x, const Group& group);      // along dim 0, in rank order
Var reduce_scatter(const Var& x, const Group& group);  // along dim 0, which size() divides
Var broadcast(const Var& x, const Group& group, int root);
Var all_to_all(const Var& x, const Counts& send, const Counts& recv, const Group& group);

}  // namespace switchyard
