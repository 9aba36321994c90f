// The catalogue of differentiable ops. Shapes: rows = all dims but the last, flattened. Weights are [out,
// in], as on disk in Hugging Face. Every op has a line in the op-case table (tests/support/op_cases.cpp).
#pragma once

#include <memory>

#include "core/autograd.h"
#include "core/token_ids.h"
#include "kernels/attention.h"
#include "kernels/balance.h"
#include "kernels/dispatch.h"
#include "kernels/routing.h"

namespace switchyard {

// --- Matrix products. w must be a leaf; its gradient is accumulated in Acc straight out of the product.
Var linear(const Var& x, const Var& w, const Var& bias = {});  // [rows, in] x [out, in] -> [rows, out]

// A bf16 x by a float32 w that is not rounded, [rows, out] in float32; dx is bf16. Else linear(cast(x), w).
Var mixed_linear(const Var& x, const Var& w);

// Ragged groups of rows: offsets[g] .. offsets[g+1] belong to group g (I64 [groups + 1], on x's device).
// `host` is the same on the host, where it is known. By default: one group of all rows.
struct RowGroups {
  Tensor offsets;
  std::shared_ptr<const std::vector<int64_t>> host;
  bool is_all_rows() const { return !offsets.defined(); }
  int64_t groups() const { return is_all_rows() ? 1 : offsets.numel() - 1; }
  RowGroups part(int64_t begin, int64_t count) const;
};
// ws: stacks of matrices [.., out, in], one matrix for each group, one stack after the other.
Var grouped_linear(const Var& x, const Vars& ws, const RowGroups& groups);

// --- Transformer.
Var rms_norm(const Var& x, const Var& w, double eps);  // x [rows, d], w [d] -> [rows, d]
// The residual stream: sum = x + delta and norm = rms_norm(sum, w), in one pass. All [rows, d].
struct SumAndNorm {
  Var sum, norm;
};
SumAndNorm add_rms_norm(const Var& x, const Var& delta, const Var& w, double eps);
Var swiglu(const Var& x);  // [rows, 2 n] -> [rows, n]
// swiglu(linear(x, w)) and swiglu(grouped_linear(x, ws, groups)): one pass where a GPU has a kernel for it.
Var linear_swiglu(const Var& x, const Var& w);
Var grouped_linear_swiglu(const Var& x, const Vars& ws, const RowGroups& groups);

struct RopeTable {
  Tensor cos, sin;  // [seq, rotary_dim / 2] in Acc
  int64_t rotary_dim;
};
RopeTable make_rope_table(int64_t seq, int64_t rotary_dim, double theta, DType dtype, Device device);
// Packed projections [tokens, (heads + 2 kv_heads) head_dim]: per-head RMSNorm of queries and keys (weights
// undefined: none), then rotation; in place where there is no norm and qkv is given away by std::move.
Var norm_rope(Var qkv, const Var& q_weight, const Var& k_weight, const RopeTable& rope,
              const kernels::AttentionShape& shape, double eps);
// Causal attention over packed rows -> [tokens, heads head_dim]. documents: I32 [tokens] or undefined.
Var attention(const Var& qkv, const kernels::AttentionShape& shape, const Tensor& documents = {});

// Of the last token alone -> [1, heads head_dim]; qkv: the packed rows of all shape.seq tokens of one
// sequence. No gradient.
Tensor attention_of_last(const Tensor& qkv, const kernels::AttentionShape& shape);

// Result [tokens, cols].
Var embedding(const Var& table, const TokenIds& tokens);

// Cross-entropy of the head's logits h w^T, in chunks of rows: no [rows, vocab] tensor exists. The gradient
// is computed with the loss. loss = scale * sum over targets [tokens] I32; a target of -1 counts as none.
struct LossSum {
  Var loss;    // [1] in Acc
  Tensor sum;  // [1] F64: unscaled sum of -log p
};
LossSum linear_cross_entropy(const Var& h, const Var& w, const Tensor& targets, double scale);

// --- Small pieces.
Var axpby(const Var& a, const Var& b, double alpha, double beta);  // alpha a + beta b, of equal shapes
Var add(const Var& a, const Var& b);
Var cast(const Var& x, DType dtype);
Var multiply(const Var& x, const Tensor& factors);        // element by element; the factors carry no gradient
Var columns(const Var& x, int64_t begin, int64_t count);  // x[:, begin : begin + count]
Var join_columns(const Vars& parts);                      // side by side
Var sigmoid_gate(const Var& x, const Var& gate);          // sigmoid(gate[r]) x[r, :];  gate [rows, 1]

// --- Mixture of experts (kernels/routing.h, gate_noise.h, dispatch.h, balance.h have the formulas).
// Noisy gating: logits + noise * softplus(spread), all [tokens, experts] in Acc. The noise has no gradient.
Var add_gate_noise(const Var& logits, const Var& spread, const Tensor& noise);

struct Routing {
  Var weight;      // [tokens, top_k] in Acc
  Var scores;      // [tokens, experts] in Acc
  Tensor expert;   // [tokens, top_k] I32, as chosen
  Tensor entropy;  // [tokens] in Acc
};
Routing route(const Var& logits, const Tensor& bias, const kernels::RouteRule& rule);

// `expert` after drops (a copy); -1 where a pair was dropped.
Tensor drop_over_capacity(const Tensor& expert, const Tensor& weight, int64_t experts, int64_t capacity,
                          kernels::DropPolicy policy);

struct SortedPairs {
  Tensor counts;    // [experts] I64
  Tensor offsets;   // [experts + 1] I64
  Tensor position;  // [tokens, top_k] I32
  Tensor source;    // [tokens * top_k] I32
  int64_t top_k() const { return position.cols(); }
  int64_t tokens() const { return position.dim(0); }
};
SortedPairs sort_by_expert(const Tensor& expert, int64_t experts);

Var permute(const Var& x, const SortedPairs& pairs, int64_t rows);  // [tokens, d] -> [rows, d], by expert
// [rows, d] -> [tokens, d]: plain sums, permute's transpose.
Var unpermute(const Var& x, const SortedPairs& pairs);
Var combine(const Var& x, const Var& weight, const SortedPairs& pairs);  // [rows, d] -> [tokens, d]

// Where experts are held: the rank and the place there of each, I32 [experts] (kernels/rank_rows.h).
struct ExpertHomes {
  Tensor rank, local;
  int64_t ranks;
};
// A token's rows, one for each rank that holds any of its experts: ranks take the place of experts.
SortedPairs sort_by_rank(const Tensor& expert, const ExpertHomes& homes);
// What row n's rank runs of its token's choices: [rows, top_k] I32, experts as numbered there; -1: not there.
Tensor choices_of_rows(const Tensor& expert, const SortedPairs& by_rank, const ExpertHomes& homes,
                       int64_t rows);
// I64 [2, ranks]: rows for each rank, and pairs.
Tensor totals_of_ranks(const SortedPairs& by_rank, const SortedPairs& by_expert, const ExpertHomes& homes);

// scores [tokens, experts], expert [tokens, top_k] -> [1]. `excess`: [experts] in the scores' type, or
// undefined. The formulas: kernels/balance.h.
Var balance_loss(const Var& scores, const Tensor& expert, kernels::BalanceKind kind, int64_t segments,
                 double coeff, const Tensor& excess = {});
Var z_loss(const Var& logits, double coeff);

}  // namespace switchyard
