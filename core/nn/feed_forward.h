// The SwiGLU feed-forward block:   y = (silu(x Wg^T) * (x Wu^T)) Wd^T.   Gate and up are one matrix [2 m, d].
#pragma once

#include "core/nn/parameters.h"
#include "core/ops.h"

namespace switchyard {

class FeedForward {
 public:
  FeedForward() = default;
  // Logical tensors: prefix + "gate_proj.weight" and "up_proj.weight" [m, d], "down_proj.weight" [d, m].
  FeedForward(ParameterStore& store, const std::string& prefix, int64_t hidden, int64_t intermediate,
              DType dtype, double stddev);
  Var operator()(const Var& x) const { return linear(linear_swiglu(x, gate_up_), down_); }

 private:
  Var gate_up_, down_;
};

}  // namespace switchyard
