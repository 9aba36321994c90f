#include "core/ops/swiglu.h"

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/swiglu.h"

namespace switchyard {

void swiglu_into(const Tensor& y, const Tensor& x) {
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::SwigluForward<T>{y.data<T>(), x.data<T>(), x.rows(), y.cols()});
  });
}

Tensor swiglu_gradient(const Tensor& dy, const Tensor& x) {
  const Tensor dx = empty_like(x);
  launch(x, [&]<class T>(auto on) {
    kernels::run(on,
                 kernels::SwigluBackward<T>{dx.data<T>(), dy.data<T>(), x.data<T>(), x.rows(), dy.cols()});
  });
  return dx;
}

Var swiglu(const Var& x) {
  const Tensor xv = x.value();
  const Tensor y = Tensor::empty({xv.rows(), xv.cols() / 2}, xv.dtype(), xv.device());
  swiglu_into(y, xv);
  return record("swiglu", y, {x}, [=](const Tensor& dy) -> Tensors { return {swiglu_gradient(dy, xv)}; });
}

}  // namespace switchyard
