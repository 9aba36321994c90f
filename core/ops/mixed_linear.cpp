#include <algorithm>

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/matmul.h"
#include "kernels/split.h"

namespace switchyard {

namespace {

using kernels::Part;

// x, of rows * cols elements, in parts: [rows, terms, cols]
Tensor split(const Tensor& x, int64_t rows, int64_t cols, std::initializer_list<Part> parts) {
  const auto terms = static_cast<int64_t>(parts.size());
  const Tensor y = Tensor::empty({rows, terms, cols}, DType::kBF16, x.device());
  kernels::Split args{y.data<BF16>(), x.data<float>(), rows, cols, static_cast<int>(terms), {}};
  std::copy(parts.begin(), parts.end(), args.part);
  launch_on(x.device(), [&](auto on) { kernels::run(on, args); });
  return y;
}

// y (+)= the sum of products, of rows * 3 * cols elements, over the parts
void sum_parts(const Tensor& y, const Tensor& products, int64_t rows, int64_t cols, bool accumulate) {
  launch_on(y.device(), [&](auto on) {
    kernels::run(on, kernels::SumParts{y.data<float>(), products.data<float>(), rows, cols, accumulate});
  });
}

// x w^T: one product with the weight's parts one under another
Tensor product(const Tensor& x, const Tensor& w) {
  const int64_t rows = x.rows(), outputs = w.dim(0);
  const Tensor parts = split(w, 1, w.numel(), {Part::kHi, Part::kMid, Part::kLo});
  const Tensor products = Tensor::empty({rows, 3 * outputs}, DType::kF32, x.device());
  launch_on(x.device(), [&](auto on) {
    kernels::run(on, kernels::Matmul<BF16, float>{.c = products.data<float>(),
                                                  .a = x.data<BF16>(),
                                                  .b = parts.data<BF16>(),
                                                  .m = rows,
                                                  .n = 3 * outputs,
                                                  .k = w.dim(1),
                                                  .transpose_b = true});
  });
  const Tensor y = Tensor::empty(with_cols(x.shape(), outputs), DType::kF32, x.device());
  sum_parts(y, products, rows, outputs, false);
  return y;
}

// The parts of dy side by side, as both gradients want them: the first three for dx, the last three for dw.
Tensor split_gradient(const Tensor& dy) {
  return split(dy, dy.rows(), dy.cols(), {Part::kHi, Part::kHi, Part::kMid, Part::kLo});
}

// dx = dy w  is rounded to bf16, so 16 bits of either will do:   hi hi + hi mid + mid hi
Tensor input_gradient(const Tensor& dy_parts, const Tensor& w, const Shape& shape) {
  const Tensor parts = split(w, 1, w.numel(), {Part::kHi, Part::kMid, Part::kHi});
  const Tensor dx = Tensor::empty(shape, DType::kBF16, w.device());
  launch_on(w.device(), [&](auto on) {
    kernels::run(on, kernels::Matmul<BF16>{.c = dx.data<BF16>(),
                                           .a = dy_parts.data<BF16>(),
                                           .b = parts.data<BF16>(),
                                           .m = dx.rows(),
                                           .n = w.dim(1),
                                           .k = 3 * w.dim(0),
                                           .lda = 4 * w.dim(0)});
  });
  return dx;
}

// dw (+)= dy^T x
Tensor weight_gradient(const Var& w, const Tensor& dy_parts, const Tensor& x) {
  const int64_t outputs = w.dim(0);
  const Tensor products = Tensor::empty({3 * outputs, x.cols()}, DType::kF32, x.device());
  launch_on(x.device(), [&](auto on) {
    kernels::run(on, kernels::Matmul<BF16, float>{.c = products.data<float>(),
                                                  .a = dy_parts.data<BF16>() + outputs,
                                                  .b = x.data<BF16>(),
                                                  .m = 3 * outputs,
                                                  .n = x.cols(),
                                                  .k = x.rows(),
                                                  .transpose_a = true,
                                                  .lda = 4 * outputs});
  });
  const GradTarget dw = grad_target(w);
  sum_parts(dw.tensor, products, 1, outputs * x.cols(), dw.accumulate);
  return dw.tensor;
}

}  // namespace

Var mixed_linear(const Var& x, const Var& w) {
  // A CPU (and a plan) takes float32 as it is: there a product with parts would be three times the work.
  const bool parts = x.dtype() == DType::kBF16 && w.dtype() == DType::kF32 && x.device() == Device::kCuda;
  if (!parts) return linear(cast(x, w.dtype()), w);
  const Tensor xv = x.value(), wv = w.value();
  CHECK(wv.dim(1) == xv.cols() && w.is_leaf(), to_string(xv.shape()), " by ", to_string(wv.shape()));
  return record("linear", product(xv, wv), {x, w},
                [xv, w, want = x.requires_grad()](const Tensor& dy) -> Tensors {
                  const Tensor parts = split_gradient(dy);
                  return {want ? input_gradient(parts, w.value(), xv.shape()) : Tensor(),
                          gradient_if(w, [&] { return weight_gradient(w, parts, xv); })};
                });
}

}  // namespace switchyard
