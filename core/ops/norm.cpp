#include <cmath>

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/norm_rope.h"
#include "kernels/rms_norm.h"

namespace switchyard {

namespace {

struct Normed {
  Tensor y, rstd;
};

// `delta` undefined: of x; else of x + delta, which is written to `sum`.
Normed run_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& sum, const Tensor& w, double eps) {
  CHECK(w.numel() == x.cols(), to_string(x.shape()), " by ", to_string(w.shape()));
  const Normed out{empty_like(x), Tensor::empty({x.rows()}, acc_of(x.dtype()), x.device())};
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::RmsNormForward<T>{.y = out.y.data<T>(),
                                                .rstd = out.rstd.data<Acc<T>>(),
                                                .x = x.data<T>(),
                                                .w = w.data<T>(),
                                                .rows = x.rows(),
                                                .cols = x.cols(),
                                                .eps = static_cast<Acc<T>>(eps),
                                                .delta = delta.data_or_null<T>(),
                                                .sum = sum.data_or_null<T>()});
  });
  return out;
}

struct NormGradient {
  Tensor dx, dw;
};

// `dsum`: the gradient that x gets besides, or undefined.
NormGradient rms_norm_gradient(const Tensor& x, const Var& w, const Tensor& rstd, const Tensor& dy,
                               const Tensor& dsum) {
  const NormGradient grad{empty_like(x), grad_target(w, true).tensor};
  const Tensor workspace =
      Tensor::empty({kernels::RmsNormBackward<float>::kBlocks, x.cols()}, rstd.dtype(), x.device());
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::RmsNormBackward<T>{.dx = grad.dx.data<T>(),
                                                 .dw = grad.dw.data<Acc<T>>(),
                                                 .dy = dy.data<T>(),
                                                 .x = x.data<T>(),
                                                 .w = w.value().data<T>(),
                                                 .rstd = rstd.data<Acc<T>>(),
                                                 .workspace = workspace.data<Acc<T>>(),
                                                 .rows = x.rows(),
                                                 .cols = x.cols(),
                                                 .dsum = dsum.data_or_null<T>()});
  });
  return grad;
}

}  // namespace

Var rms_norm(const Var& x, const Var& w, double eps) {
  const Tensor xv = x.value();
  const Normed out = run_rms_norm(xv, {}, {}, w.value(), eps);
  return record("rms_norm", out.y, {x, w}, [xv, w, rstd = out.rstd](const Tensor& dy) -> Tensors {
    const NormGradient grad = rms_norm_gradient(xv, w, rstd, dy, {});
    return {grad.dx, grad.dw};
  });
}

SumAndNorm add_rms_norm(const Var& x, const Var& delta, const Var& w, double eps) {
  const Tensor xv = x.value(), sum = empty_like(xv);
  CHECK(delta.shape() == xv.shape() && delta.dtype() == xv.dtype(), to_string(xv.shape()), " and ",
        to_string(delta.shape()));
  const Normed out = run_rms_norm(xv, delta.value(), sum, w.value(), eps);
  const Vars results = record("add_rms_norm", Tensors{sum, out.y}, {x, delta, w},
                              [sum, w, rstd = out.rstd](const Tensors& dys) -> Tensors {
                                const Tensor &dsum = dys[0], &dy = dys[1];
                                if (!dy.defined()) return {dsum, dsum, Tensor()};
                                const NormGradient grad = rms_norm_gradient(sum, w, rstd, dy, dsum);
                                return {grad.dx, grad.dx, grad.dw};
                              });
  return {results[0], results[1]};
}

RopeTable make_rope_table(int64_t seq, int64_t rotary_dim, double theta, DType dtype, Device device) {
  const int64_t half = rotary_dim / 2;
  if (device == Device::kMeta) {
    const Tensor table = Tensor::empty({seq, half}, acc_of(dtype), device);
    return {table, Tensor::empty({seq, half}, acc_of(dtype), device), rotary_dim};
  }
  auto fill = [&]<class A>(double (*f)(double)) {
    std::vector<A> values(seq * half);
    for (int64_t t = 0; t < seq; ++t) {
      for (int64_t j = 0; j < half; ++j) {
        // The frequency in float32, as Hugging Face computes it; the product in A.
        const A frequency = static_cast<A>(std::pow(theta, -2.0 * j / rotary_dim));
        values[t * half + j] = static_cast<A>(f(static_cast<A>(t) * frequency));
      }
    }
    return Tensor::from(values, {seq, half}, device);
  };
  if (acc_of(dtype) == DType::kF64) {
    return {fill.template operator()<double>(std::cos), fill.template operator()<double>(std::sin),
            rotary_dim};
  }
  return {fill.template operator()<float>(std::cos), fill.template operator()<float>(std::sin), rotary_dim};
}

Var norm_rope(Var qkv, const Var& q_weight, const Var& k_weight, const RopeTable& rope,
              const kernels::AttentionShape& shape, double eps) {
  const bool norm = q_weight.defined(), in_place = !norm && qkv.is_only_use();
  const Tensor x = qkv.value(), y = in_place ? x : empty_like(x);
  CHECK(x.cols() == shape.row() && x.rows() == shape.batch * shape.seq && rope.cos.dim(0) >= shape.seq,
        to_string(x.shape()), ", row ", shape.row(), ", seq ", shape.seq);
  const Tensor qw = norm ? q_weight.value() : Tensor(), kw = norm ? k_weight.value() : Tensor();
  Tensor rstd;
  if (norm) rstd = Tensor::empty({x.rows(), shape.heads + shape.kv_heads}, acc_of(x.dtype()), x.device());
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::NormRopeForward<T>{.y = y.data<T>(),
                                                 .rstd = rstd.data_or_null<Acc<T>>(),
                                                 .x = x.data<T>(),
                                                 .q_weight = qw.data_or_null<T>(),
                                                 .k_weight = kw.data_or_null<T>(),
                                                 .cos = rope.cos.data<Acc<T>>(),
                                                 .sin = rope.sin.data<Acc<T>>(),
                                                 .tokens = x.rows(),
                                                 .seq = shape.seq,
                                                 .heads = shape.heads,
                                                 .kv_heads = shape.kv_heads,
                                                 .head_dim = shape.head_dim,
                                                 .rotary_dim = rope.rotary_dim,
                                                 .eps = static_cast<Acc<T>>(eps)});
  });
  Vars inputs{std::move(qkv)};
  if (norm) inputs.insert(inputs.end(), {q_weight, k_weight});
  return record("norm_rope", y, inputs, [=, x = norm ? x : Tensor()](const Tensor& dy) -> Tensors {
    const Tensor dx = dy.is_shared() ? empty_like(dy) : dy;
    Tensor dqw, dkw, workspace;
    if (norm) {
      dqw = grad_target(q_weight, true).tensor;
      dkw = grad_target(k_weight, true).tensor;
      workspace = Tensor::empty({kernels::NormRopeBackward<float>::kBlocks, 2, shape.head_dim}, rstd.dtype(),
                                dy.device());
    }
    launch(dy, [&]<class T>(auto on) {
      kernels::run(on, kernels::NormRopeBackward<T>{.dx = dx.data<T>(),
                                                    .dq_weight = dqw.data_or_null<Acc<T>>(),
                                                    .dk_weight = dkw.data_or_null<Acc<T>>(),
                                                    .dy = dy.data<T>(),
                                                    .x = x.data_or_null<T>(),
                                                    .q_weight = qw.data_or_null<T>(),
                                                    .k_weight = kw.data_or_null<T>(),
                                                    .rstd = rstd.data_or_null<Acc<T>>(),
                                                    .cos = rope.cos.data<Acc<T>>(),
                                                    .sin = rope.sin.data<Acc<T>>(),
                                                    .workspace = workspace.data_or_null<Acc<T>>(),
                                                    .tokens = dy.rows(),
                                                    .seq = shape.seq,
                                                    .heads = shape.heads,
                                                    .kv_heads = shape.kv_heads,
                                                    .head_dim = shape.head_dim,
                                                    .rotary_dim = rope.rotary_dim});
    });
    if (!norm) return {dx};
    return {dx, dqw, dkw};
  });
}

}  // namespace switchyard
