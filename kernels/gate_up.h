// The first half of a SwiGLU feed-forward block on a GPU that has a kernel for it: the product of gate and
// up, and SwiGLU (swiglu.h) of it without a pass over memory of its own. Groups of rows are as in
// grouped_matmul.h.
//   gate_up[r, :] = x[r, :] W[g]^T,   y[r, :] = silu(gate) * up
// The same bits as one after the other: gate and up are rounded to bf16 in between here too.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

struct GateUp {
  BF16* y;                     // [rows, n]
  BF16* gate_up;               // [rows, 2 n]
  const BF16* x;               // [rows, k]
  const BF16* w;               // [groups, 2 n, k]
  const int64_t* offsets;      // [groups + 1] on the device; null: one group of all rows
  int64_t groups, rows, n, k;  // rows: the buffer's
};

// False where there is no kernel for it, or none that is faster; then nothing is done.
bool run_fused(Cuda, const GateUp&);

}  // namespace switchyard::kernels
