// What one MoE layer is. Names: Megatron's.
#pragma once

#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/routing.h"

namespace switchyard {

// kGlobal: Switch's loss with the experts' shares of the whole global batch, the one before (moe_layer.h).
enum class Balance : uint8_t { kAux, kSequence, kKl, kCv, kEntropy, kGlobal = 6 };

struct MoeOptions {
  int64_t num_experts = 0;
  int64_t top_k = 0;
  int64_t moe_intermediate_size = 0;
  // A shared expert sees every token; 0: none. Gated: multiplied by sigmoid(x . gate) (Qwen2-MoE).
  int64_t shared_expert_intermediate_size = 0;
  bool shared_expert_gate = false;

  kernels::ScoreFunction score_function = kernels::ScoreFunction::kSoftmax;
  bool pre_softmax = true;     // softmax over all experts, then top-k (false: softmax over the chosen)
  bool normalize_topk = true;  // divide the chosen scores by their sum
  double topk_scaling_factor = 1;
  int64_t num_groups = 1;  // group-limited choice: search only the group_topk best of num_groups groups
  int64_t group_topk = 1;

  double capacity_factor = 0;       // 0: dropless. Capacity counts the tokens of one micro-batch
  double eval_capacity_factor = 0;  // 0: evaluation is dropless
  int64_t min_capacity = 0;
  bool pad_to_capacity = false;  // asks for nothing: products over ragged groups need no rows of zeros
  kernels::DropPolicy token_drop_policy = kernels::DropPolicy::kProbs;

  std::vector<Balance> balance;  // empty: no balance loss
  double aux_loss_coeff = 0;     // of every kind in `balance`
  double z_loss_coeff = 0;
  bool expert_bias = false;     // a selection bias per expert (aux-loss-free balancing)
  double bias_update_rate = 0;  // moves the bias once per global batch
  double jitter_eps = 0;        // router input * U[1 - eps, 1 + eps], training only
  bool noisy_gate = false;      // logits + N(0, 1) * softplus(x W_noise), W_noise trained; training only

  double dense_weight = 0;     // hybrid block: y = a * Dense(x) + (1 - a) * MoE(x); 0: no dense branch
  bool force_balance = false;  // benchmarks only: experts in turn
};

}  // namespace switchyard
