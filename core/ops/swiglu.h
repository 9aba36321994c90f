// SwiGLU and its gradient without a graph, for ops that are made of several.
#pragma once

#include "core/tensor.h"

namespace switchyard {

void swiglu_into(const Tensor& y, const Tensor& x);         // x [rows, 2 n], y [rows, n]
Tensor swiglu_gradient(const Tensor& dy, const Tensor& x);  // of x

}  // namespace switchyard
