#include "core/grad_factors.h"

namespace switchyard {

bool are_few_rows(int64_t rows, int64_t groups) {
  constexpr int64_t kMostInTheMean = kernels::kFewRows * 2 / 3;
  return rows <= kMostInTheMean * groups;
}

void multiply_out(const GradFactors& factors, kernels::GroupsOf which, const Tensor& grad,
                  const Tensor& squares) {
  launch_factors(factors, [&]<class T>(const kernels::GradientFactors<T>& f) {
    kernels::run(Cpu{}, kernels::GroupedMatmulWeight<T>{.dw = grad.data<Acc<T>>(),
                                                        .dy = f.dy,
                                                        .x = f.x,
                                                        .offsets = f.offsets,
                                                        .groups = f.groups,
                                                        .rows = factors.dy.rows(),
                                                        .n = f.n,
                                                        .k = f.k,
                                                        .host_offsets = f.offsets,
                                                        .squares = squares.data_or_null<double>(),
                                                        .which = which});
  });
}

void sum_squares(const GradFactors& factors, const Tensor& squares) {
  launch_factors(factors, [&]<class T>(const kernels::GradientFactors<T>& f) {
    kernels::run(Cpu{}, kernels::FactorSquares<T>{squares.data<double>(), f});
  });
}

}  // namespace switchyard
