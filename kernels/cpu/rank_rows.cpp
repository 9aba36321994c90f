#include "kernels/rank_rows.h"

#include "kernels/cpu/loops.h"

namespace switchyard::kernels {

void run(Cpu, const RanksOfTokens& a) {
  for_rows(a.tokens, a.ranks + a.top_k, [=](int64_t t) {
    int32_t* rank = a.rank + t * a.ranks;
    std::fill_n(rank, a.ranks, -1);
    for (int64_t j = 0; j < a.top_k; ++j)
      if (const int32_t e = a.expert[t * a.top_k + j]; e >= 0) rank[a.home[e]] = a.home[e];
  });
}

void run(Cpu, const ChoicesOfRows& a) {
  for_rows(a.rows, a.top_k, [=](int64_t n) {
    const int64_t t = a.source[n] / a.ranks, r = a.source[n] % a.ranks;
    for (int64_t j = 0; j < a.top_k; ++j) {
      const int32_t e = a.expert[t * a.top_k + j];
      a.choice[n * a.top_k + j] = e >= 0 && a.home[e] == r ? a.local[e] : -1;
    }
  });
}

void run(Cpu, const TotalsOfRanks& a) {
  std::copy_n(a.rows, a.ranks, a.total);
  std::fill_n(a.total + a.ranks, a.ranks, 0);
  for (int64_t e = 0; e < a.experts; ++e) a.total[a.ranks + a.home[e]] += a.pairs[e];
}

}  // namespace switchyard::kernels
