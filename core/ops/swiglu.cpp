#include "core/ops/swiglu.h"

#include "core/launch.h"
#include "core/ops/common.h"
#include "kernels/grouped_swiglu.h"
#include "kernels/swiglu.h"

namespace switchyard {

Var swiglu(const Var& x) {
  const Tensor xv = x.value();
  const int64_t rows = xv.rows(), cols = xv.cols() / 2;
  const Tensor y = Tensor::empty({rows, cols}, xv.dtype(), xv.device());
  launch(xv, [&]<class T>(auto on) {
    kernels::run(on, kernels::SwigluForward<T>{y.data<T>(), xv.data<T>(), rows, cols});
  });
  return record("swiglu", y, {x}, [xv](const Tensor& dy) -> Tensors { return {swiglu_gradient(xv, dy)}; });
}

Tensor swiglu_gradient(const Tensor& x, const Tensor& dy) {
  const Tensor dx = empty_like(x);
  launch(x, [&]<class T>(auto on) {
    kernels::run(on,
                 kernels::SwigluBackward<T>{dx.data<T>(), dy.data<T>(), x.data<T>(), x.rows(), dy.cols()});
  });
  return dx;
}

bool fuses_swiglu(const Var& x) { return x.device() == Device::kCuda && x.dtype() == DType::kBF16; }

void run_fused_swiglu(const Tensor& y, const Tensor& gate_up, const Tensor& x, const Tensor& w,
                      const int64_t* offsets, int64_t groups) {
  launch_on(x.device(), [&](auto on) {
    if constexpr (std::is_same_v<decltype(on), Cuda>) {
      kernels::run(on, kernels::GroupedSwiglu{.y = y.data<BF16>(),
                                              .gate_up = gate_up.data<BF16>(),
                                              .x = x.data<BF16>(),
                                              .w = w.data<BF16>(),
                                              .offsets = offsets,
                                              .groups = groups,
                                              .rows = x.rows(),
                                              .n = y.cols(),
                                              .k = x.cols()});
    }
  });
}

}  // namespace switchyard
