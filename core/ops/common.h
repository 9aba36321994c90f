// Small things that several ops share.
#pragma once

#include "core/autograd.h"

namespace switchyard {

// f() where v wants a gradient, else an undefined tensor.
template <class F>
Tensor gradient_if(const Var& v, F&& f) {
  return v.requires_grad() ? f() : Tensor();
}

inline Shape with_cols(const Shape& shape, int64_t cols) {
  std::vector<int64_t> dims = shape.vector();
  dims.back() = cols;
  return Shape(dims);
}

inline Tensor empty_like(const Tensor& x) { return Tensor::empty(x.shape(), x.dtype(), x.device()); }

}  // namespace switchyard
