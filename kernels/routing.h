// The router's choice, all in A = float (double in gradient checks):
//
//   scores      s = softmax(z) over all experts, or sigmoid(z)
//   choice      the top_k largest s + bias (no bias: s); a tie goes to the lowest expert.
//               num_groups > 1: a group's score is the sum of its best top_k / group_topk (s + bias); only
//               the group_topk best groups are searched; the same tie rule for groups.
//   weights     SOFTMAX, pre_softmax:   u = s of the chosen;  w = u / sum(u) if normalize, else u
//               SOFTMAX, !pre_softmax:  w = softmax over the chosen z
//               SIGMOID:                u = s of the chosen;  w = u / (sum(u) + kTiny) if normalize, else u
//               all times `scaling`
// Choices of a token are in the order of falling s + bias. The bias carries no gradient, the choice neither.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

inline constexpr int64_t kMaxExperts = 4096;  // on a CPU a token's keys stand on the stack
inline constexpr double kTiny = 1e-20;        // DeepSeek-V3's and GLM-4's
// On a GPU a warp routes a token: a lane has at most 16 experts, one choice and one group.
inline constexpr int64_t kMaxCudaExperts = 512, kMaxCudaChoices = 32, kMaxCudaGroups = 32;

enum class ScoreFunction : uint8_t { kSoftmax, kSigmoid };

struct RouteRule {
  int64_t experts = 0, top_k = 0;
  ScoreFunction score = ScoreFunction::kSoftmax;
  bool pre_softmax = false;
  bool normalize = false;
  float scaling = 1;
  int64_t num_groups = 1, group_topk = 1;
  bool force_balance = false;  // benchmarks: token t's slot j takes expert (t * top_k + j) % experts

  void check() const;  // that sizes and groups fit each other
};

template <class A>
struct RouteForward {
  A* scores;        // [tokens, experts]
  int32_t* expert;  // [tokens, top_k]
  A* weight;        // [tokens, top_k]
  A* entropy;       // [tokens] or null: entropy of the normalised scores, in nats
  const A* logits;  // [tokens, experts]
  const A* bias;    // [experts] or null
  int64_t tokens;
  RouteRule rule;
};

// dlogits from the gradients of the weights and (where a balance loss gave one) of the scores.
template <class A>
struct RouteBackward {
  A* dlogits;             // [tokens, experts], every element is written
  const A* dweight;       // [tokens, top_k] or null
  const A* dscores;       // [tokens, experts] or null
  const A* scores;        // as forward wrote them
  const int32_t* expert;  // as forward chose, before any drop
  const A* weight;        // as forward wrote them
  int64_t tokens;
  RouteRule rule;
};

// Instantiated for float, double.
template <class A>
void run(Cpu, const RouteForward<A>&);
template <class A>
void run(Cuda, const RouteForward<A>&);
template <class A>
void run(Cpu, const RouteBackward<A>&);
template <class A>
void run(Cuda, const RouteBackward<A>&);

}  // namespace switchyard::kernels
