#include "kernels/rank_rows.h"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels {
namespace {

__global__ void ranks_kernel(RanksOfTokens a) {
  const int64_t i = map_index();
  if (i >= a.tokens * a.ranks) return;
  const int64_t token = i / a.ranks;
  const int32_t rank = static_cast<int32_t>(i % a.ranks);
  int32_t found = -1;
  for (int64_t j = 0; j < a.top_k; ++j) {
    const int32_t expert = a.expert[token * a.top_k + j];
    if (expert >= 0 && a.home[expert] == rank) found = rank;
  }
  a.rank[i] = found;
}

__global__ void choices_kernel(ChoicesOfRows a) {
  const int64_t i = map_index();
  if (i >= a.rows * a.top_k) return;
  const int32_t source = a.source[i / a.top_k];
  const int32_t expert = a.expert[source / a.ranks * a.top_k + i % a.top_k];
  a.choice[i] = expert >= 0 && a.home[expert] == source % a.ranks ? a.local[expert] : -1;
}

// A thread a rank: experts are few.
__global__ void totals_kernel(TotalsOfRanks a) {
  const int64_t rank = map_index();
  if (rank >= a.ranks) return;
  int64_t pairs = 0;
  for (int64_t e = 0; e < a.experts; ++e)
    if (a.home[e] == rank) pairs += a.pairs[e];
  a.total[rank] = a.rows[rank];
  a.total[a.ranks + rank] = pairs;
}

}  // namespace

void run(Cuda on, const RanksOfTokens& a) {
  launch_kernel(ranks_kernel, map_grid(a.tokens * a.ranks), kMapThreads, 0, on.stream, a);
}

void run(Cuda on, const ChoicesOfRows& a) {
  launch_kernel(choices_kernel, map_grid(a.rows * a.top_k), kMapThreads, 0, on.stream, a);
}

void run(Cuda on, const TotalsOfRanks& a) {
  launch_kernel(totals_kernel, map_grid(a.ranks), kMapThreads, 0, on.stream, a);
}

}  // namespace switchyard::kernels
