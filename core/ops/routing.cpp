#include "kernels/routing.h"

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/balance.h"
#include "kernels/gate_noise.h"

namespace switchyard {

Var add_gate_noise(const Var& logits, const Var& spread, const Tensor& noise) {
  const Tensor z = logits.value(), s = spread.value(), y = empty_like(z);
  CHECK(z.shape() == s.shape() && z.shape() == noise.shape(), to_string(z.shape()), ", ",
        to_string(s.shape()), " and ", to_string(noise.shape()));
  launch_wide(z, [&]<class A>(auto on) {
    kernels::run(on, kernels::GateNoiseForward<A>{.y = y.data<A>(),
                                                  .logits = z.data<A>(),
                                                  .spread = s.data<A>(),
                                                  .noise = noise.data<A>(),
                                                  .n = z.numel()});
  });
  return record("gate_noise", y, {logits, spread}, [s, noise](const Tensor& dy) -> Tensors {
    const Tensor dspread = empty_like(s);
    launch_wide(s, [&]<class A>(auto on) {
      kernels::run(on, kernels::GateNoiseBackward<A>{.dspread = dspread.data<A>(),
                                                     .dy = dy.data<A>(),
                                                     .spread = s.data<A>(),
                                                     .noise = noise.data<A>(),
                                                     .n = s.numel()});
    });
    return {dy, dspread};
  });
}

Routing route(const Var& logits, const Tensor& bias, const kernels::RouteRule& rule) {
  const Tensor z = logits.value(), scores = empty_like(z);
  const int64_t tokens = z.rows();
  CHECK(z.cols() == rule.experts, to_string(z.shape()), " for ", rule.experts, " experts");
  const Tensor weight = Tensor::empty({tokens, rule.top_k}, z.dtype(), z.device());
  const Tensor expert = Tensor::empty({tokens, rule.top_k}, DType::kI32, z.device());
  const Tensor entropy = Tensor::empty({tokens}, z.dtype(), z.device());
  launch_wide(z, [&]<class A>(auto on) {
    kernels::run(on, kernels::RouteForward<A>{.scores = scores.data<A>(),
                                              .expert = expert.data<int32_t>(),
                                              .weight = weight.data<A>(),
                                              .entropy = entropy.data<A>(),
                                              .logits = z.data<A>(),
                                              .bias = bias.data_or_null<A>(),
                                              .tokens = tokens,
                                              .rule = rule});
  });
  Vars results = record("route", {weight, scores}, {logits}, [=](const Tensors& dys) -> Tensors {
    const Tensor dlogits = empty_like(scores);
    launch_wide(scores, [&]<class A>(auto on) {
      kernels::run(on, kernels::RouteBackward<A>{.dlogits = dlogits.data<A>(),
                                                 .dweight = dys[0].data_or_null<A>(),
                                                 .dscores = dys[1].data_or_null<A>(),
                                                 .scores = scores.data<A>(),
                                                 .expert = expert.data<int32_t>(),
                                                 .weight = weight.data<A>(),
                                                 .tokens = tokens,
                                                 .rule = rule});
    });
    return {dlogits};
  });
  return {results[0], results[1], expert, entropy};
}

Var balance_loss(const Var& scores, const Tensor& expert, kernels::BalanceKind kind, int64_t segments,
                 double coeff, const Tensor& excess) {
  const Tensor s = scores.value();
  const int64_t tokens = s.rows(), experts = s.cols();
  CHECK(segments > 0 && tokens % segments == 0, tokens, " tokens in ", segments, " segments");
  const Tensor loss = Tensor::empty({1}, s.dtype(), s.device());
  const Tensor mean = Tensor::empty({segments, experts}, s.dtype(), s.device()), dmean = empty_like(mean);
  const Tensor workspace =
      Tensor::empty({kernels::BalanceForward<float>::kBlocks, segments, experts}, s.dtype(), s.device());
  launch_wide(s, [&]<class A>(auto on) {
    kernels::run(on, kernels::BalanceForward<A>{.loss = loss.data<A>(),
                                                .dmean = dmean.data<A>(),
                                                .mean = mean.data<A>(),
                                                .scores = s.data<A>(),
                                                .expert = expert.data<int32_t>(),
                                                .tokens = tokens,
                                                .experts = experts,
                                                .top_k = expert.cols(),
                                                .segments = segments,
                                                .kind = kind,
                                                .coeff = static_cast<A>(coeff),
                                                .workspace = workspace.data<A>(),
                                                .excess = excess.data_or_null<A>()});
  });
  return record("balance_loss", loss, {scores}, [=](const Tensor& dloss) -> Tensors {
    const Tensor dscores = empty_like(s);
    launch_wide(s, [&]<class A>(auto on) {
      kernels::run(on, kernels::BalanceBackward<A>{.dscores = dscores.data<A>(),
                                                   .dloss = dloss.data<A>(),
                                                   .dmean = dmean.data<A>(),
                                                   .scores = s.data<A>(),
                                                   .tokens = tokens,
                                                   .experts = experts,
                                                   .segments = segments});
    });
    return {dscores};
  });
}

Var z_loss(const Var& logits, double coeff) {
  const Tensor z = logits.value();
  const Tensor loss = Tensor::empty({1}, z.dtype(), z.device());
  const Tensor lse = Tensor::empty({z.rows()}, z.dtype(), z.device());
  launch_wide(z, [&]<class A>(auto on) {
    kernels::run(on, kernels::ZLossForward<A>{.loss = loss.data<A>(),
                                              .lse = lse.data<A>(),
                                              .logits = z.data<A>(),
                                              .tokens = z.rows(),
                                              .experts = z.cols(),
                                              .coeff = static_cast<A>(coeff)});
  });
  return record("z_loss", loss, {logits}, [=](const Tensor& dloss) -> Tensors {
    const Tensor dlogits = empty_like(z);
    launch_wide(z, [&]<class A>(auto on) {
      kernels::run(on, kernels::ZLossBackward<A>{.dlogits = dlogits.data<A>(),
                                                 .dloss = dloss.data<A>(),
                                                 .lse = lse.data<A>(),
                                                 .logits = z.data<A>(),
                                                 .tokens = z.rows(),
                                                 .experts = z.cols(),
                                                 .coeff = static_cast<A>(coeff)});
    });
    return {dlogits};
  });
}

}  // namespace switchyard
