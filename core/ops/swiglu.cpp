#include "kernels/swiglu.h"
#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"

namespace switchyard {

Var swiglu(const Var& x) {
  const Tensor xv = x.value();
  const int64_t rows = xv.rows(), cols = xv.cols() / 2;
  const Tensor y = Tensor::empty({rows, cols}, xv.dtype(), xv.device());
  launch(xv, [&]<class T>(auto on) {
    kernels::run(on, kernels::SwigluForward<T>{y.data<T>(), xv.data<T>(), rows, cols});
  });
  return record("swiglu", y, {x}, [=](const Tensor& dy) -> Tensors {
    const Tensor dx = empty_like(xv);
    launch(xv, [&]<class T>(auto on) {
      kernels::run(on, kernels::SwigluBackward<T>{dx.data<T>(), dy.data<T>(), xv.data<T>(), rows, cols});
    });
    return {dx};
  });
}

}  // namespace switchyard
