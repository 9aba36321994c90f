// Losses that keep the experts evenly loaded, in A = float (double in gradient checks). T
// tokens in `segments` equal parts (1, or one a sequence), E experts, k choices, p = scores
// of a token divided by their sum.
//
//   P[s, e] = mean over the segment's tokens of p      f[s, e] = assignments of the segment to e / (tokens k)
//   kSwitch    coeff * E * mean over s of sum_e f P    (= coeff under uniform routing; f carries no gradient;
//              given `excess`, f[e] = 1 / E + excess[e] instead: the shares of other tokens than these)
//   kKl        coeff * KL(uniform || P) = coeff * (-log E - mean_e log P)
//   kCv        coeff * (std(P) / mean(P))^2            (population variance)
//   kEntropy   coeff * (1 - H(P) / log E)
//   z-loss     coeff * mean over tokens of logsumexp(z)^2
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

inline constexpr double kLeastMean = 1e-20;  // what a mean probability counts as at least

enum class BalanceKind : uint8_t { kSwitch, kKl, kCv, kEntropy };

template <class A>
struct BalanceForward {
  static constexpr int64_t kBlocks = 128;
  A* loss;                // [1]
  A* dmean;               // [segments, experts]: d loss / d P
  A* mean;                // [segments, experts]: P
  const A* scores;        // [tokens, experts]
  const int32_t* expert;  // [tokens, top_k], before any drop
  int64_t tokens, experts, top_k, segments;
  BalanceKind kind;
  A coeff;
  // [kBlocks, segments, experts], or null: CUDA then sums a segment in one block, slowly.
  A* workspace = nullptr;
  const A* excess = nullptr;  // [experts] or null; kSwitch only
};

// dscores = *dloss * d loss / d scores
template <class A>
struct BalanceBackward {
  A* dscores;       // [tokens, experts], every element is written
  const A* dloss;   // [1]
  const A* dmean;   // [segments, experts]
  const A* scores;  // [tokens, experts]
  int64_t tokens, experts, segments;
};

template <class A>
struct ZLossForward {
  A* loss;          // [1]
  A* lse;           // [tokens]: logsumexp of each row, kept for the backward pass
  const A* logits;  // [tokens, experts]
  int64_t tokens, experts;
  A coeff;
};

// dlogits = *dloss * 2 coeff / tokens * lse * softmax(z)
template <class A>
struct ZLossBackward {
  A* dlogits;      // [tokens, experts], every element is written
  const A* dloss;  // [1]
  const A* lse;
  const A* logits;
  int64_t tokens, experts;
  A coeff;
};

#define SWITCHYARD_DECLARE_RUN(Args) \
  template <class A>                 \
  void run(Cpu, const Args<A>&);     \
  template <class A>                 \
  void run(Cuda, const Args<A>&);

// Instantiated for float, double.
SWITCHYARD_DECLARE_RUN(BalanceForward)
SWITCHYARD_DECLARE_RUN(BalanceBackward)
SWITCHYARD_DECLARE_RUN(ZLossForward)
SWITCHYARD_DECLARE_RUN(ZLossBackward)
#undef SWITCHYARD_DECLARE_RUN

}  // namespace switchyard::kernels
