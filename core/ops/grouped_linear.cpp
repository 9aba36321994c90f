#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/grouped_matmul.h"

namespace switchyard {

namespace {

// f(w, the groups that it is for), stack by stack.
template <class F>
void each_stack(const Vars& ws, const RowGroups& groups, const F& f) {
  int64_t begin = 0;
  for (const Var& w : ws) {
    f(w, groups.part(begin, w.dim(0)));
    begin += w.dim(0);
  }
  CHECK(begin == groups.groups(), begin, " matrices for ", groups.groups(), " groups");
}

void multiply(const Tensor& y, const Tensor& x, const Tensor& w, const RowGroups& groups, bool transpose_w) {
  CHECK(x.cols() == w.dim(transpose_w ? 2 : 1), to_string(x.shape()), " by ", to_string(w.shape()));
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::GroupedMatmul<T>{.y = y.data<T>(),
                                               .x = x.data<T>(),
                                               .w = w.data<T>(),
                                               .offsets = groups.offsets.data<int64_t>(),
                                               .groups = groups.groups(),
                                               .rows = x.rows(),
                                               .n = y.cols(),
                                               .k = x.cols(),
                                               .transpose_w = transpose_w,
                                               .host_offsets = groups.host ? groups.host->data() : nullptr});
  });
}

// y = x w^T (transpose_w) or x w, group by group. Rows outside the groups stay as
// they are; nobody reads them.
Tensor product(const Tensor& x, const Vars& ws, const RowGroups& groups, bool transpose_w) {
  const Tensor y = Tensor::empty({x.rows(), ws.at(0).dim(transpose_w ? 1 : 2)}, x.dtype(), x.device());
  each_stack(ws, groups,
             [&](const Var& w, const RowGroups& part) { multiply(y, x, w.value(), part, transpose_w); });
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

RowGroups RowGroups::part(int64_t begin, int64_t count) const {
  if (begin == 0 && count == groups()) return *this;
  CHECK(begin + count <= groups(), begin + count, " of ", groups(), " groups");
  RowGroups part{offsets.slice(begin, {count + 1}), nullptr};
  if (host)
    part.host =
        std::make_shared<std::vector<int64_t>>(host->begin() + begin, host->begin() + begin + count + 1);
  return part;
}

Var grouped_linear(const Var& x, const Vars& ws, const RowGroups& groups) {
  Vars inputs{x};
  for (const Var& w : ws) {
    CHECK(w.is_leaf() && w.dtype() == x.dtype());
    inputs.push_back(w);
  }
  const Tensor xv = x.value();
  return record("grouped_linear", product(xv, ws, groups, true), std::move(inputs),
                [xv, ws, groups, want = x.requires_grad()](const Tensor& dy) -> Tensors {
                  Tensors grads{want ? product(dy, ws, groups, false) : Tensor()};
                  each_stack(ws, groups, [&](const Var& w, const RowGroups& part) {
                    grads.push_back(gradient_if(w, [&] { return weight_gradient(w, dy, xv, part); }));
                  });
                  return grads;
                });
}

}  // namespace switchyard
