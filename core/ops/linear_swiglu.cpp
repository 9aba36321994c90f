#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "core/ops/products.h"
#include "core/ops/swiglu.h"
#include "kernels/gate_up.h"

namespace switchyard {

namespace {

// Is it worth an op of its own? (bf16 on a GPU)
bool may_fuse(const Var& x) { return x.device() == Device::kCuda && x.dtype() == DType::kBF16; }

// gate_up = x w^T and y = SwiGLU of it, of the groups' rows; false where no kernel does both.
bool run_fused(const Tensor& y, const Tensor& gate_up, const Tensor& x, const Tensor& w,
               const RowGroups& groups) {
  bool done = false;
  launch_on(x.device(), [&](auto on) {
    if constexpr (std::is_same_v<decltype(on), Cuda>)
      done = kernels::run_fused(on, kernels::GateUp{.y = y.data<BF16>(),
                                                    .gate_up = gate_up.data<BF16>(),
                                                    .x = x.data<BF16>(),
                                                    .w = w.data<BF16>(),
                                                    .offsets = groups.offsets.data_or_null<int64_t>(),
                                                    .groups = groups.groups(),
                                                    .rows = x.rows(),
                                                    .n = y.cols(),
                                                    .k = x.cols()});
  });
  return done;
}

Var fused(const char* name, const Var& x, const Vars& ws, const RowGroups& groups) {
  const Tensor xv = x.value();
  const int64_t n = ws.at(0).dim(-2) / 2;
  const Tensor gate_up = Tensor::empty({xv.rows(), 2 * n}, xv.dtype(), xv.device());
  const Tensor y = Tensor::empty({xv.rows(), n}, xv.dtype(), xv.device());
  Vars inputs{x};
  bool done = true;
  each_stack(ws, groups, [&](const Var& w, const RowGroups& part) {
    CHECK(w.is_leaf());
    inputs.push_back(w);
    if (run_fused(y, gate_up, xv, w.value(), part)) return;
    multiply(gate_up, xv, w.value(), part, true);
    done = false;
  });
  if (!done) swiglu_into(y, gate_up);
  return record(name, y, std::move(inputs), [=, want = x.requires_grad()](const Tensor& dy) -> Tensors {
    const Tensor d_gate_up = swiglu_gradient(dy, gate_up);
    Tensors grads{want ? empty_like(xv) : Tensor()};
    each_stack(ws, groups, [&](const Var& w, const RowGroups& part) {
      if (want) multiply(grads[0], d_gate_up, w.value(), part, false);
      grads.push_back(gradient_if(w, [&] { return weight_gradient(w, d_gate_up, xv, part); }));
    });
    return grads;
  });
}

}  // namespace

Var linear_swiglu(const Var& x, const Var& w) {
  if (!may_fuse(x)) return swiglu(linear(x, w));
  return fused("linear_swiglu", x, {w}, RowGroups());
}

Var grouped_linear_swiglu(const Var& x, const Vars& ws, const RowGroups& groups) {
  if (!may_fuse(x)) return swiglu(grouped_linear(x, ws, groups));
  return fused("grouped_linear_swiglu", x, ws, groups);
}

}  // namespace switchyard
