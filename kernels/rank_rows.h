// A token travels once to each rank that holds any of its experts: a "row" is one (token, rank). Which rows
// there are, and what their rank must know of the token's choices. Experts have homes: home[e] is the rank
// that holds expert e, as its local[e]-th.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

// rank[t, r] = r where r is home to one of token t's experts, else -1. Sorting these numbers as if they were
// experts (SortByExpert) gives the rows, by rank and then by token.
struct RanksOfTokens {
  int32_t* rank;          // [tokens, ranks]
  const int32_t* expert;  // [tokens, top_k] -1 .. experts-1
  const int32_t* home;    // [experts]
  int64_t tokens, top_k, ranks;
};
void run(Cpu, const RanksOfTokens&);
void run(Cuda, const RanksOfTokens&);

// choice[n, j] = local[expert[t, j]] where the home is r, else -1, for row n = (token t, rank r).
struct ChoicesOfRows {
  int32_t* choice;        // [rows, top_k]
  const int32_t* source;  // [rows] t * ranks + r
  const int32_t* expert;  // [tokens, top_k]
  const int32_t* home;    // [experts]
  const int32_t* local;   // [experts]
  int64_t rows, top_k, ranks;
};
void run(Cpu, const ChoicesOfRows&);
void run(Cuda, const ChoicesOfRows&);

// total[r] = rows of rank r, total[ranks + r] = its pairs: what the host must
// know, in one place to copy from.
struct TotalsOfRanks {
  int64_t* total;        // [2 ranks]
  const int64_t* rows;   // [ranks]
  const int64_t* pairs;  // [experts]
  const int32_t* home;   // [experts]
  int64_t experts, ranks;
};
void run(Cpu, const TotalsOfRanks&);
void run(Cuda, const TotalsOfRanks&);

}  // namespace switchyard::kernels
