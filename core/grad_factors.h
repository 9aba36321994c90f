// A weight gradient that is left as what it is the product of: dy^T x of every group of rows
// (kernels/gradient_factors.h). On the CPU, in float32 and bf16.
#pragma once

#include "core/tensor.h"
#include "kernels/gradient_factors.h"

namespace switchyard {

struct GradFactors {
  Tensor dy, x;    // [rows, out], [rows, in]
  Tensor offsets;  // I64 [groups + 1]
};

// Whether it is worth leaving the gradients of so many groups: factors are kept until the gradient is used.
bool are_few_rows(int64_t rows, int64_t groups);

// Writes the gradients [groups, out, in] of those groups. squares: F64 [groups], or undefined.
void multiply_out(const GradFactors& factors, kernels::GroupsOf which, const Tensor& grad,
                  const Tensor& squares = {});
// Of the gradients of groups of few rows.
void sum_squares(const GradFactors& factors, const Tensor& squares);

// f(kernels::GradientFactors<T>); not on Device::kMeta.
template <class F>
void launch_factors(const GradFactors& f, F&& run) {
  if (f.dy.device() == Device::kMeta) return;
  const auto with = [&]<class T>() {
    run(kernels::GradientFactors<T>{f.dy.data<T>(), f.x.data<T>(), f.offsets.data<int64_t>(),
                                    f.offsets.numel() - 1, f.dy.cols(), f.x.cols()});
  };
  if (f.dy.dtype() == DType::kBF16)
    with.template operator()<BF16>();
  else
    with.template operator()<float>();
}

}  // namespace switchyard
