// The first half of a feed-forward block on a GPU: gate and up of each row, and SwiGLU of them (swiglu.h), in one
// pass where the tensor cores allow. gate_up is written as well: the backward pass reads it.
//   gate_up[r, :] = x[r, :] W[g]^T for the rows r of group g,   y[r, :] = silu(gate) * up
// Groups of rows are as in grouped_matmul.h.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

struct GroupedSwiglu {
  BF16* y;                     // [rows, n]
  BF16* gate_up;               // [rows, 2 n]
  const BF16* x;               // [rows, k]
  const BF16* w;               // [groups, 2 n, k]
  const int64_t* offsets;      // [groups + 1] on the device, or null: one group of all rows
  int64_t groups, rows, n, k;  // rows: the buffer's
};

void run(Cuda, const GroupedSwiglu&);

}  // namespace switchyard::kernels
