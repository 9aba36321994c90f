#include "kernels/elementwise.h"

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"

namespace switchyard {

namespace {

// alpha * a
Tensor scaled(const Tensor& a, double alpha) {
  const Tensor y = empty_like(a);
  launch(a, [&]<class T>(auto on) {
    kernels::run(on, kernels::Axpby<T>{.y = y.data<T>(),
                                       .a = a.data<T>(),
                                       .b = nullptr,
                                       .n = a.numel(),
                                       .alpha = static_cast<Acc<T>>(alpha)});
  });
  return y;
}

Tensor converted(const Tensor& x, DType dtype) {
  const Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  launch(x, [&]<class From>(auto on) {
    visit_float(dtype, [&]<class To>() {
      kernels::run(on, kernels::Cast<To, From>{y.data<To>(), x.data<From>(), x.numel()});
    });
  });
  return y;
}

Tensor product(const Tensor& a, const Tensor& b) {
  const Tensor y = empty_like(a);
  launch(a, [&]<class T>(auto on) {
    kernels::run(on, kernels::Multiply<T>{y.data<T>(), a.data<T>(), b.data<T>(), a.numel()});
  });
  return y;
}

}  // namespace

Var axpby(const Var& a, const Var& b, double alpha, double beta) {
  const Tensor av = a.value(), bv = b.value(), y = empty_like(av);
  CHECK(av.shape() == bv.shape() && av.dtype() == bv.dtype(), to_string(av.shape()), " and ",
        to_string(bv.shape()));
  launch(av, [&]<class T>(auto on) {
    kernels::run(on, kernels::Axpby<T>{.y = y.data<T>(),
                                       .a = av.data<T>(),
                                       .b = bv.data<T>(),
                                       .n = av.numel(),
                                       .alpha = static_cast<Acc<T>>(alpha),
                                       .beta = static_cast<Acc<T>>(beta)});
  });
  return record("axpby", y, {a, b}, [alpha, beta](const Tensor& dy) -> Tensors {
    return {alpha == 1 ? dy : scaled(dy, alpha), beta == 1 ? dy : scaled(dy, beta)};
  });
}

Var add(const Var& a, const Var& b) { return axpby(a, b, 1, 1); }

Var cast(const Var& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return record("cast", converted(x.value(), dtype), {x},
                [from = x.dtype()](const Tensor& dy) -> Tensors { return {converted(dy, from)}; });
}

Var multiply(const Var& x, const Tensor& factors) {
  CHECK(x.shape() == factors.shape() && x.dtype() == factors.dtype(), to_string(x.shape()), " by ",
        to_string(factors.shape()));
  return record("multiply", product(x.value(), factors), {x},
                [factors](const Tensor& dy) -> Tensors { return {product(dy, factors)}; });
}

Var sigmoid_gate(const Var& x, const Var& gate) {
  const Tensor xv = x.value(), gv = gate.value(), y = empty_like(xv);
  CHECK(gv.numel() == xv.rows(), to_string(xv.shape()), " gated by ", to_string(gv.shape()));
  launch(xv, [&]<class T>(auto on) {
    kernels::run(
        on, kernels::SigmoidGateForward<T>{y.data<T>(), xv.data<T>(), gv.data<T>(), xv.rows(), xv.cols()});
  });
  return record("sigmoid_gate", y, {x, gate}, [xv, gv](const Tensor& dy) -> Tensors {
    const Tensor dx = empty_like(xv), dg = empty_like(gv);
    launch(xv, [&]<class T>(auto on) {
      kernels::run(on, kernels::SigmoidGateBackward<T>{dx.data<T>(), dg.data<T>(), dy.data<T>(), xv.data<T>(),
                                                       gv.data<T>(), xv.rows(), xv.cols()});
    });
    return {dx, dg};
  });
}

}  // namespace switchyard
