#include "kernels/dispatch.h"

#include "core/launch.h"
#include "core/ops.h"
#include "core/ops/common.h"
#include "kernels/rank_rows.h"

namespace switchyard {

namespace {

Tensor gather_rows(const Tensor& x, const Tensor& index, int64_t rows, int64_t divisor) {
  const Tensor y = Tensor::empty({rows, x.cols()}, x.dtype(), x.device());
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::GatherRows<T>{.y = y.data<T>(),
                                            .x = x.data<T>(),
                                            .index = index.data<int32_t>(),
                                            .rows = rows,
                                            .cols = x.cols(),
                                            .divisor = divisor});
  });
  return y;
}

// weight undefined: a plain sum of a token's rows, the transpose of gathering them.
Tensor combine_rows(const Tensor& x, const Tensor& position, const Tensor& weight) {
  const int64_t tokens = position.dim(0);
  const Tensor y = Tensor::empty({tokens, x.cols()}, x.dtype(), x.device());
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::CombineForward<T>{.y = y.data<T>(),
                                                .x = x.data<T>(),
                                                .position = position.data<int32_t>(),
                                                .weight = weight.data_or_null<Acc<T>>(),
                                                .tokens = tokens,
                                                .top_k = position.cols(),
                                                .cols = x.cols()});
  });
  return y;
}

}  // namespace

Tensor drop_over_capacity(const Tensor& expert, const Tensor& weight, int64_t experts, int64_t capacity,
                          kernels::DropPolicy policy) {
  const Tensor kept = expert.clone();
  const int64_t tokens = expert.dim(0), top_k = expert.cols();
  const Tensor workspace =
      Tensor::empty({kernels::DropOverCapacity<float>::workspace_bytes(tokens, top_k, experts)}, DType::kU8,
                    expert.device());
  launch_wide(weight, [&]<class A>(auto on) {
    kernels::run(on, kernels::DropOverCapacity<A>{.expert = kept.data<int32_t>(),
                                                  .weight = weight.data<A>(),
                                                  .tokens = tokens,
                                                  .top_k = top_k,
                                                  .experts = experts,
                                                  .capacity = capacity,
                                                  .policy = policy,
                                                  .workspace = workspace.raw()});
  });
  return kept;
}

SortedPairs sort_by_expert(const Tensor& expert, int64_t experts) {
  const Device device = expert.device();
  const int64_t pairs = expert.numel();
  SortedPairs sorted{Tensor::empty({experts}, DType::kI64, device),
                     Tensor::empty({experts + 1}, DType::kI64, device), empty_like(expert),
                     Tensor::empty({pairs}, DType::kI32, device)};
  const Tensor workspace =
      Tensor::empty({kernels::SortByExpert::workspace_bytes(pairs, experts)}, DType::kU8, device);
  launch_on(device, [&](auto on) {
    kernels::run(on, kernels::SortByExpert{.counts = sorted.counts.data<int64_t>(),
                                           .offsets = sorted.offsets.data<int64_t>(),
                                           .position = sorted.position.data<int32_t>(),
                                           .source = sorted.source.data<int32_t>(),
                                           .expert = expert.data<int32_t>(),
                                           .pairs = pairs,
                                           .experts = experts,
                                           .workspace = workspace.raw()});
  });
  return sorted;
}

Var permute(const Var& x, const SortedPairs& pairs, int64_t rows) {
  return record(
      "permute", gather_rows(x.value(), pairs.source, rows, pairs.top_k()), {x},
      [position = pairs.position](const Tensor& dy) -> Tensors { return {combine_rows(dy, position, {})}; });
}

Var combine(const Var& x, const Var& weight, const SortedPairs& pairs) {
  const Tensor xv = x.value(), w = weight.value();
  return record("combine", combine_rows(xv, pairs.position, w), {x, weight},
                [=](const Tensor& dy) -> Tensors {
                  const Tensor dx = empty_like(xv), dweight = empty_like(w);
                  launch(xv, [&]<class T>(auto on) {
                    kernels::run(on, kernels::CombineBackward<T>{.dx = dx.data<T>(),
                                                                 .dweight = dweight.data<Acc<T>>(),
                                                                 .dy = dy.data<T>(),
                                                                 .x = xv.data<T>(),
                                                                 .position = pairs.position.data<int32_t>(),
                                                                 .source = pairs.source.data<int32_t>(),
                                                                 .weight = w.data<Acc<T>>(),
                                                                 .tokens = pairs.tokens(),
                                                                 .top_k = pairs.top_k(),
                                                                 .rows = xv.rows(),
                                                                 .cols = xv.cols()});
                  });
                  return {dx, dweight};
                });
}

Var unpermute(const Var& x, const SortedPairs& pairs) {
  const int64_t rows = x.value().rows();
  return record(
      "unpermute", combine_rows(x.value(), pairs.position, {}), {x},
      [=](const Tensor& dy) -> Tensors { return {gather_rows(dy, pairs.source, rows, pairs.top_k())}; });
}

SortedPairs sort_by_rank(const Tensor& expert, const ExpertHomes& homes) {
  const int64_t tokens = expert.dim(0);
  const Tensor rank = Tensor::empty({tokens, homes.ranks}, DType::kI32, expert.device());
  launch_on(expert.device(), [&](auto on) {
    kernels::run(on, kernels::RanksOfTokens{.rank = rank.data<int32_t>(),
                                            .expert = expert.data<int32_t>(),
                                            .home = homes.rank.data<int32_t>(),
                                            .tokens = tokens,
                                            .top_k = expert.cols(),
                                            .ranks = homes.ranks});
  });
  return sort_by_expert(rank, homes.ranks);
}

Tensor choices_of_rows(const Tensor& expert, const SortedPairs& by_rank, const ExpertHomes& homes,
                       int64_t rows) {
  const Tensor choice = Tensor::empty({rows, expert.cols()}, DType::kI32, expert.device());
  launch_on(expert.device(), [&](auto on) {
    kernels::run(on, kernels::ChoicesOfRows{.choice = choice.data<int32_t>(),
                                            .source = by_rank.source.data<int32_t>(),
                                            .expert = expert.data<int32_t>(),
                                            .home = homes.rank.data<int32_t>(),
                                            .local = homes.local.data<int32_t>(),
                                            .rows = rows,
                                            .top_k = expert.cols(),
                                            .ranks = homes.ranks});
  });
  return choice;
}

Tensor totals_of_ranks(const SortedPairs& by_rank, const SortedPairs& by_expert, const ExpertHomes& homes) {
  const Tensor total = Tensor::empty({2, homes.ranks}, DType::kI64, by_rank.counts.device());
  launch_on(total.device(), [&](auto on) {
    kernels::run(on, kernels::TotalsOfRanks{.total = total.data<int64_t>(),
                                            .rows = by_rank.counts.data<int64_t>(),
                                            .pairs = by_expert.counts.data<int64_t>(),
                                            .home = homes.rank.data<int32_t>(),
                                            .experts = by_expert.counts.numel(),
                                            .ranks = homes.ranks});
  });
  return total;
}

}  // namespace switchyard
