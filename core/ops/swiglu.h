// What the ops share that end in SwiGLU.
#pragma once

#include "core/ops.h"

namespace switchyard {

// Is there a kernel that makes the projection and SwiGLU of its rows in one pass? (bf16 on a GPU)
bool fuses_swiglu(const Var& x);
// kernels::GroupedSwiglu: y and gate_up of x [rows, k] and w [groups, 2 n, k]. offsets: null is one group of
// all rows.
void run_fused_swiglu(const Tensor& y, const Tensor& gate_up, const Tensor& x, const Tensor& w,
                      const int64_t* offsets, int64_t groups);
// The gradient of swiglu(x).
Tensor swiglu_gradient(const Tensor& x, const Tensor& dy);

}  // namespace switchyard
