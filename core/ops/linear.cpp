#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"

namespace switchyard {

namespace {

void add_bias(const Tensor& y, const Tensor& bias) {
  launch(y, [&]<class T>(auto on) {
    kernels::run(on, kernels::AddBias<T>{y.data<T>(), y.data<T>(), bias.data<T>(), y.rows(), y.cols()});
  });
}

Tensor bias_gradient(const Var& bias, const Tensor& dy) {
  const Tensor db = grad_target(bias, true).tensor;
  const Tensor workspace =
      Tensor::empty({kernels::ColumnSum<float>::kBlocks, dy.cols()}, acc_of(dy.dtype()), dy.device());
  launch(dy, [&]<class T>(auto on) {
    kernels::run(on, kernels::ColumnSum<T>{db.data<Acc<T>>(), dy.data<T>(), workspace.data<Acc<T>>(),
                                           dy.rows(), dy.cols()});
  });
  return db;
}

// dx = dy w
Tensor input_gradient(const Tensor& dy, const Tensor& w, const Shape& shape) {
  const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
  launch(dy, [&]<class T>(auto on) {
    kernels::run(on, kernels::Matmul<T>{.c = dx.data<T>(),
                                        .a = dy.data<T>(),
                                        .b = w.data<T>(),
                                        .m = dy.rows(),
                                        .n = w.dim(1),
                                        .k = w.dim(0)});
  });
  return dx;
}

// dw (+)= dy^T x
Tensor weight_gradient(const Var& w, const Tensor& dy, const Tensor& x) {
  const GradTarget dw = grad_target(w);
  launch(dy, [&]<class T>(auto on) {
    kernels::run(on, kernels::Matmul<T, Acc<T>>{.c = dw.tensor.data<Acc<T>>(),
                                                .a = dy.data<T>(),
                                                .b = x.data<T>(),
                                                .m = dy.cols(),
                                                .n = x.cols(),
                                                .k = dy.rows(),
                                                .transpose_a = true,
                                                .accumulate = dw.accumulate});
  });
  return dw.tensor;
}

}  // namespace

Var linear(const Var& x, const Var& w, const Var& bias) {
  const Tensor xv = x.value(), wv = w.value();
  CHECK(wv.dim(1) == xv.cols() && wv.dtype() == xv.dtype() && w.is_leaf(), to_string(xv.shape()), " by ",
        to_string(wv.shape()));
  const Tensor y = Tensor::empty(with_cols(xv.shape(), wv.dim(0)), xv.dtype(), xv.device());
  launch(xv, [&]<class T>(auto on) {
    kernels::run(on, kernels::Matmul<T>{.c = y.data<T>(),
                                        .a = xv.data<T>(),
                                        .b = wv.data<T>(),
                                        .m = xv.rows(),
                                        .n = wv.dim(0),
                                        .k = wv.dim(1),
                                        .transpose_b = true});
  });
  if (!bias.defined()) {
    return record("linear", y, {x, w}, [xv, w, want = x.requires_grad()](const Tensor& dy) -> Tensors {
      return {want ? input_gradient(dy, w.value(), xv.shape()) : Tensor(),
              gradient_if(w, [&] { return weight_gradient(w, dy, xv); })};
    });
  }
  add_bias(y, bias.value());
  return record("linear", y, {x, w, bias},
                [xv, w, bias, want = x.requires_grad()](const Tensor& dy) -> Tensors {
                  return {want ? input_gradient(dy, w.value(), xv.shape()) : Tensor(),
                          gradient_if(w, [&] { return weight_gradient(w, dy, xv); }),
                          gradient_if(bias, [&] { return bias_gradient(bias, dy); })};
                });
}

}  // namespace switchyard
