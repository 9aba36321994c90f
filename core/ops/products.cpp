#include "core/ops/products.h"

#include "core/launch.h"
#include "kernels/grouped_matmul.h"
#include "kernels/matmul.h"

namespace switchyard {
namespace {

// In how many parts the squares of a weight gradient are summed up while it is made: one a group, or none.
int64_t square_parts(const Tensor& dy, const RowGroups& groups) {
  const Device device = dy.device() == Device::kMeta ? imitated() : dy.device();
  bool sums = false;
  if (device == Device::kCpu && !groups.is_all_rows())
    visit_float(dy.dtype(), [&]<class T>() { sums = kernels::sums_squares<T>(Cpu{}); });
  return sums ? groups.groups() : 0;
}

}  // namespace

void multiply(const Tensor& y, const Tensor& x, const Tensor& w, const RowGroups& groups, bool transpose_w,
              const kernels::LateUpdate* update) {
  CHECK(x.cols() == w.dim(transpose_w ? -1 : -2) && y.cols() == w.dim(transpose_w ? -2 : -1) &&
            x.dtype() == w.dtype(),
        to_string(x.shape()), " by ", to_string(w.shape()));
  launch(x, [&]<class T>(auto on) {
    if (groups.is_all_rows()) {
      CHECK(update == nullptr, "an update that waits for a product of one matrix");
      kernels::run(on, kernels::Matmul<T>{.c = y.data<T>(),
                                          .a = x.data<T>(),
                                          .b = w.data<T>(),
                                          .m = x.rows(),
                                          .n = y.cols(),
                                          .k = x.cols(),
                                          .transpose_b = transpose_w});
      return;
    }
    kernels::run(on, kernels::GroupedMatmul<T>{.y = y.data<T>(),
                                               .x = x.data<T>(),
                                               .w = w.data<T>(),
                                               .offsets = groups.offsets.data<int64_t>(),
                                               .groups = groups.groups(),
                                               .rows = x.rows(),
                                               .n = y.cols(),
                                               .k = x.cols(),
                                               .transpose_w = transpose_w,
                                               .host_offsets = groups.host ? groups.host->data() : nullptr,
                                               .update = update});
  });
}

Tensor weight_gradient(const Var& w, const Tensor& dy, const Tensor& x, const RowGroups& groups) {
  const GradTarget dw = grad_target(w, false, square_parts(dy, groups));
  if (dw.may_stay_factors && are_few_rows(dy.rows(), groups.groups())) {
    const GradFactors factors{dy, x, groups.offsets};
    multiply_out(factors, kernels::GroupsOf::kManyRows, dw.tensor, dw.squares);
    sum_squares(factors, dw.squares);
    w.leave_grad_as(factors);
    return dw.tensor;
  }
  launch(dy, [&]<class T>(auto on) {
    if (groups.is_all_rows()) {
      kernels::run(on, kernels::Matmul<T, Acc<T>>{.c = dw.tensor.data<Acc<T>>(),
                                                  .a = dy.data<T>(),
                                                  .b = x.data<T>(),
                                                  .m = dy.cols(),
                                                  .n = x.cols(),
                                                  .k = dy.rows(),
                                                  .transpose_a = true,
                                                  .accumulate = dw.accumulate});
      return;
    }
    kernels::run(on,
                 kernels::GroupedMatmulWeight<T>{.dw = dw.tensor.data<Acc<T>>(),
                                                 .dy = dy.data<T>(),
                                                 .x = x.data<T>(),
                                                 .offsets = groups.offsets.data<int64_t>(),
                                                 .groups = groups.groups(),
                                                 .rows = x.rows(),
                                                 .n = dy.cols(),
                                                 .k = x.cols(),
                                                 .accumulate = dw.accumulate,
                                                 .host_offsets = groups.host ? groups.host->data() : nullptr,
                                                 .squares = dw.squares.data_or_null<double>()});
  });
  return dw.tensor;
}

}  // namespace switchyard
