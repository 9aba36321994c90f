#include "kernels/cross_entropy.h"

#include <algorithm>

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/elementwise.h"
#include "kernels/half_logits.h"
#include "kernels/matmul.h"

namespace switchyard {

namespace {

// Logits exist for one chunk of rows at a time.
struct Chunk {
  Tensor logits, dlogits;  // [rows, stride] in Acc and T; one memory where T is Acc or the logits are half
  int64_t rows, stride;
};

struct HeadGradient {
  Tensor dh, dw;  // of h (T) and w (Acc), for d loss = 1; undefined where not wanted
};

// On a GPU bf16 has logits of float16 (kernels/half_logits.h).
template <class T, class On>
inline constexpr bool kHalfLogits = std::is_same_v<T, BF16>&& std::is_same_v<On, Cuda>;

Chunk make_chunk(const Tensor& h, int64_t vocab, bool gradient) {
  const bool cuda = h.device() == Device::kCuda, half = cuda && h.dtype() == DType::kBF16;
  const int64_t elements = half ? int64_t{1} << 28 : cuda ? int64_t{1} << 27 : int64_t{1} << 21;
  const int64_t stride = half ? kernels::half_logits_stride(vocab) : vocab;
  int64_t rows = std::max<int64_t>(elements / std::max<int64_t>(vocab, 1), 64);
  if (cuda && rows > 128) rows -= rows % 128;  // whole tiles of the product
  rows = std::min(rows, h.rows());
  Chunk chunk{
      Tensor::empty({rows, stride}, half ? h.dtype() : acc_of(h.dtype()), h.device()), {}, rows, stride};
  const bool shared = half || acc_of(h.dtype()) == h.dtype();
  if (gradient) chunk.dlogits = shared ? chunk.logits : Tensor::empty({rows, stride}, h.dtype(), h.device());
  return chunk;
}

// Rows begin .. begin + rows.
struct Rows {
  int64_t begin, rows;
};

// Losses of some rows, and their logits' gradient if the chunk has memory for it.
void run_losses(const Tensor& h, const Tensor& w, const Tensor& target, const Tensor& losses,
                const Chunk& chunk, Rows r, double scale) {
  const int64_t vocab = w.dim(0), d = w.dim(1);
  launch(h, [&]<class T>(auto on) {
    using A = Acc<T>;
    const T* hp = h.data<T>() + r.begin * d;
    A* loss = losses.data<A>() + r.begin;
    T* dlogits = chunk.dlogits.data_or_null<T>();
    const int32_t* targets = target.data<int32_t>() + r.begin;
    if constexpr (kHalfLogits<T, decltype(on)>) {
      auto* logits = static_cast<F16*>(chunk.logits.raw());
      kernels::run(on, kernels::HalfLogits{logits, hp, w.data<T>(), r.rows, vocab, d});
      kernels::run(on, kernels::HalfCrossEntropy{loss, dlogits, logits, targets, r.rows, vocab,
                                                 static_cast<A>(scale)});
    } else {
      A* logits = chunk.logits.data<A>();
      kernels::run(
          on,
          kernels::Matmul<T, A>{
              .c = logits, .a = hp, .b = w.data<T>(), .m = r.rows, .n = vocab, .k = d, .transpose_b = true});
      kernels::run(on, kernels::CrossEntropy<T>{.loss = loss,
                                                .dlogits = dlogits,
                                                .logits = logits,
                                                .target = targets,
                                                .rows = r.rows,
                                                .vocab = vocab,
                                                .scale = static_cast<A>(scale)});
    }
  });
}

// The rows' part of the gradient: dh = dlogits w,   dw (+)= dlogits^T h.
void run_gradient(const Tensor& h, const Tensor& w, const Chunk& chunk, const HeadGradient& grad, Rows r) {
  const int64_t vocab = w.dim(0), d = w.dim(1);
  launch(h, [&]<class T>(auto on) {
    const T* dlogits = chunk.dlogits.data<T>();
    kernels::run(on, kernels::Matmul<T>{.c = grad.dh.data<T>() + r.begin * d,
                                        .a = dlogits,
                                        .b = w.data<T>(),
                                        .m = r.rows,
                                        .n = d,
                                        .k = vocab,
                                        .lda = chunk.stride});
    kernels::run(on, kernels::Matmul<T, Acc<T>>{.c = grad.dw.data<Acc<T>>(),
                                                .a = dlogits,
                                                .b = h.data<T>() + r.begin * d,
                                                .m = vocab,
                                                .n = d,
                                                .k = r.rows,
                                                .transpose_a = true,
                                                .accumulate = r.begin > 0,
                                                .lda = chunk.stride});
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

LossSum linear_cross_entropy(const Var& h, const Var& w, const Tensor& targets, double scale) {
  const Tensor hv = h.value(), wv = w.value();
  const int64_t rows = hv.rows(), vocab = wv.dim(0);
  CHECK(targets.numel() == rows && wv.dim(1) == hv.cols(), targets.numel(), " targets, ",
        to_string(hv.shape()), " by ", to_string(wv.shape()));
  const DType wide = acc_of(hv.dtype());
  const Tensor losses = Tensor::empty({rows}, wide, hv.device());
  HeadGradient grad;
  if (needs_grad({h, w})) {
    grad = {empty_like(hv), Tensor::empty(wv.shape(), wide, wv.device())};
    if (rows == 0) grad.dw.zero();
  }
  {
    const Chunk chunk = make_chunk(hv, vocab, grad.dh.defined());
    for (int64_t begin = 0; begin < rows; begin += chunk.rows) {
      const Rows r{begin, std::min(chunk.rows, rows - begin)};
      run_losses(hv, wv, targets, losses, chunk, r, scale);
      if (grad.dh.defined()) run_gradient(hv, wv, chunk, grad, r);
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
