#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "core/ops/products.h"
#include "kernels/elementwise.h"

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

Tensor input_gradient(const Tensor& dy, const Tensor& w, const Shape& shape) {
  const Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
  multiply(dx, dy, w, RowGroups(), false);
  return dx;
}

}  // namespace

Var linear(const Var& x, const Var& w, const Var& bias) {
  const Tensor xv = x.value(), wv = w.value();
  CHECK(wv.dim(1) == xv.cols() && wv.dtype() == xv.dtype() && w.is_leaf(), to_string(xv.shape()), " by ",
        to_string(wv.shape()));
  const Tensor y = Tensor::empty(with_cols(xv.shape(), wv.dim(0)), xv.dtype(), xv.device());
  multiply(y, xv, wv, RowGroups(), true);
  if (!bias.defined()) {
    return record("linear", y, {x, w}, [xv, w, want = x.requires_grad()](const Tensor& dy) -> Tensors {
      return {want ? input_gradient(dy, w.value(), xv.shape()) : Tensor(),
              gradient_if(w, [&] { return weight_gradient(w, dy, xv, RowGroups()); })};
    });
  }
  add_bias(y, bias.value());
  return record("linear", y, {x, w, bias},
                [xv, w, bias, want = x.requires_grad()](const Tensor& dy) -> Tensors {
                  return {want ? input_gradient(dy, w.value(), xv.shape()) : Tensor(),
                          gradient_if(w, [&] { return weight_gradient(w, dy, xv, RowGroups()); }),
                          gradient_if(bias, [&] { return bias_gradient(bias, dy); })};
                });
}

}  // namespace switchyard
