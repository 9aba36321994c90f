#include "kernels/cross_entropy.h"

#include <algorithm>

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"

namespace switchyard {

namespace {

// Logits exist for one chunk of rows at a time: about this many elements.
int64_t chunk_elements(Device device) {
  return device == Device::kCuda ? int64_t{1} << 27 : int64_t{1} << 21;
}

struct Chunk {
  Tensor logits, dlogits;  // [rows, vocab] in Acc and T; one memory where T is Acc
};

struct HeadGradient {
  Tensor dh, dw;  // of h (T) and w (Acc), for d loss = 1; undefined where not wanted
};

// Losses of rows begin .. begin + rows, and their part of the gradient.
void run_chunk(const Tensor& h, const Tensor& w, const Tensor& target, const Tensor& losses,
               const Chunk& chunk, const HeadGradient& grad, int64_t begin, int64_t rows, double scale) {
  const int64_t vocab = w.dim(0), d = w.dim(1);
  const bool want = grad.dh.defined();
  launch(h, [&]<class T>(auto on) {
    using A = Acc<T>;
    const T* hp = h.data<T>() + begin * d;
    A* logits = chunk.logits.data<A>();
    T* dlogits = want ? chunk.dlogits.data<T>() : nullptr;
    kernels::run(
        on, kernels::Matmul<T, A>{
                .c = logits, .a = hp, .b = w.data<T>(), .m = rows, .n = vocab, .k = d, .transpose_b = true});
    kernels::run(on, kernels::CrossEntropy<T>{.loss = losses.data<A>() + begin,
                                              .dlogits = dlogits,
                                              .logits = logits,
                                              .target = target.data<int32_t>() + begin,
                                              .rows = rows,
                                              .vocab = vocab,
                                              .scale = static_cast<A>(scale)});
    if (!want) return;
    kernels::run(on, kernels::Matmul<T>{.c = grad.dh.data<T>() + begin * d,
                                        .a = dlogits,
                                        .b = w.data<T>(),
                                        .m = rows,
                                        .n = d,
                                        .k = vocab});
    kernels::run(on, kernels::Matmul<T, A>{.c = grad.dw.data<A>(),
                                           .a = dlogits,
                                           .b = hp,
                                           .m = vocab,
                                           .n = d,
                                           .k = rows,
                                           .transpose_a = true,
                                           .accumulate = begin > 0});
  });
}

// sum[0] = scale * sum of x
Tensor sum_of(const Tensor& x, double scale) {
  const Tensor sum = Tensor::empty({1}, DType::kF64, x.device());
  const Tensor workspace = Tensor::empty({kernels::Sum<float>::kBlocks}, DType::kF64, x.device());
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::Sum<T>{.sum = sum.data<double>(),
                                     .x = x.data<T>(),
                                     .workspace = workspace.data<double>(),
                                     .n = x.numel(),
                                     .scale = scale});
  });
  return sum;
}

void scale_by(const Tensor& y, const Tensor& factor) {
  launch(y, [&]<class T>(auto on) {
    kernels::run(on, kernels::ScaleBy<T>{y.data<T>(), factor.data<Acc<T>>(), y.numel()});
  });
}

// Not the op cast(): whoever observes ops would take this one's time for its.
Tensor narrowed(const Tensor& x, DType dtype) {
  const Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  launch_on(x.device(), [&](auto on) {
    visit_float(dtype, [&]<class To>() {
      kernels::run(on, kernels::Cast<To, double>{y.data<To>(), x.data<double>(), x.numel()});
    });
  });
  return y;
}

}  // namespace

LossSum linear_cross_entropy(const Var& h, const Var& w, const std::vector<int32_t>& targets, double scale) {
  const Tensor hv = h.value(), wv = w.value();
  const int64_t rows = hv.rows(), vocab = wv.dim(0);
  CHECK(static_cast<int64_t>(targets.size()) == rows && wv.dim(1) == hv.cols(), targets.size(), " targets, ",
        to_string(hv.shape()), " by ", to_string(wv.shape()));
  const DType wide = acc_of(hv.dtype());
  const Tensor target = Tensor::from(targets, {rows}, hv.device());
  const Tensor losses = Tensor::empty({rows}, wide, hv.device());
  HeadGradient grad;
  if (needs_grad({h, w})) {
    grad = {empty_like(hv), Tensor::empty(wv.shape(), wide, wv.device())};
    if (rows == 0) grad.dw.zero();
  }
  {
    const int64_t step = std::clamp<int64_t>(chunk_elements(hv.device()) / std::max<int64_t>(vocab, 1), 64,
                                             std::max<int64_t>(rows, 64));
    Chunk chunk{Tensor::empty({std::min(step, rows), vocab}, wide, hv.device()), {}};
    if (grad.dh.defined()) {
      chunk.dlogits =
          wide == hv.dtype() ? chunk.logits : Tensor::empty(chunk.logits.shape(), hv.dtype(), hv.device());
    }
    for (int64_t begin = 0; begin < rows; begin += step) {
      run_chunk(hv, wv, target, losses, chunk, grad, begin, std::min(step, rows - begin), scale);
    }
  }
  const Tensor loss = narrowed(sum_of(losses, scale), wide);
  Var result = record("linear_cross_entropy", loss, {h, w}, [grad](const Tensor& dy) -> Tensors {
    scale_by(grad.dh, dy);
    scale_by(grad.dw, dy);
    return {grad.dh, grad.dw};
  });
  return {result, sum_of(losses, 1)};
}

}  // namespace switchyard
