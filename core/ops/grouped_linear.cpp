#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/grouped_matmul.h"

namespace switchyard {

namespace {

// y = x w^T (transpose_w) or x w, group by group. Rows outside the groups stay as
// they are; nobody reads them.
Tensor product(const Tensor& x, const Tensor& w, const RowGroups& groups, bool transpose_w) {
  const int64_t n = w.dim(transpose_w ? 1 : 2), k = w.dim(transpose_w ? 2 : 1);
  CHECK(x.cols() == k && w.dim(0) == groups.groups(), to_string(x.shape()), " by ", to_string(w.shape()),
        " in ", groups.groups(), " groups");
  const Tensor y = Tensor::empty({x.rows(), n}, x.dtype(), x.device());
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::GroupedMatmul<T>{.y = y.data<T>(),
                                               .x = x.data<T>(),
                                               .w = w.data<T>(),
                                               .offsets = groups.offsets.data<int64_t>(),
                                               .groups = groups.groups(),
                                               .rows = x.rows(),
                                               .n = n,
                                               .k = k,
                                               .transpose_w = transpose_w,
                                               .host_offsets = groups.host ? groups.host->data() : nullptr});
  });
  return y;
}

Tensor weight_gradient(const Var& w, const Tensor& dy, const Tensor& x, const RowGroups& groups) {
  const GradTarget dw = grad_target(w);
  launch(dy, [&]<class T>(auto on) {
    kernels::run(
        on, kernels::GroupedMatmulWeight<T>{.dw = dw.tensor.data<Acc<T>>(),
                                            .dy = dy.data<T>(),
                                            .x = x.data<T>(),
                                            .offsets = groups.offsets.data<int64_t>(),
                                            .groups = groups.groups(),
                                            .rows = x.rows(),
                                            .n = dy.cols(),
                                            .k = x.cols(),
                                            .accumulate = dw.accumulate,
                                            .host_offsets = groups.host ? groups.host->data() : nullptr});
  });
  return dw.tensor;
}

}  // namespace

Var grouped_linear(const Var& x, const Var& w, const RowGroups& groups) {
  CHECK(w.is_leaf() && w.dtype() == x.dtype());
  const Tensor xv = x.value();
  return record("grouped_linear", product(xv, w.value(), groups, true), {x, w},
                [xv, w, groups, want = x.requires_grad()](const Tensor& dy) -> Tensors {
                  return {want ? product(dy, w.value(), groups, false) : Tensor(),
                          gradient_if(w, [&] { return weight_gradient(w, dy, xv, groups); })};
                });
}

}  // namespace switchyard
