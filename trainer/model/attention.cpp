#include "trainer/model/transformer.h"

namespace switchyard {

Attention::Attention(ParameterStore& store, const ModelOptions& o, const std::string& prefix, DType dtype)
    : qk_norm_(o.qk_norm), eps_(o.rms_norm_eps) {
  const int64_t d = o.hidden_size, q = o.num_attention_heads * o.head_dim,
                kv = o.num_key_value_heads * o.head_dim;
  qkv_ = store.add({.name = prefix + "qkv",
                    .shape = {q + 2 * kv, d},
                    .pieces = {{prefix + "q_proj.weight", 0, {q, d}},
                               {prefix + "k_proj.weight", q * d, {kv, d}},
                               {prefix + "v_proj.weight", (q + kv) * d, {kv, d}}},
                    .dtype = dtype,
                    .stddev = o.initializer_range});
  if (o.qkv_bias) {
    bias_ = store.add({.name = prefix + "qkv_bias",
                       .shape = {q + 2 * kv},
                       .pieces = {{prefix + "q_proj.bias", 0, {q}},
                                  {prefix + "k_proj.bias", q, {kv}},
                                  {prefix + "v_proj.bias", q + kv, {kv}}},
                       .dtype = dtype,
                       .decay = false,
                       .fill = 0});
  }
  out_ = store.add({.name = prefix + "o_proj",
                    .shape = {d, q},
                    .pieces = {{prefix + "o_proj.weight", 0, {d, q}}},
                    .dtype = dtype,
                    .stddev = o.initializer_range});
  if (o.qk_norm == QkNorm::kNone) return;
  const bool whole = o.qk_norm == QkNorm::kWhole;
  q_norm_ = store.add_norm(prefix + "q_norm.weight", whole ? q : o.head_dim, dtype);
  k_norm_ = store.add_norm(prefix + "k_norm.weight", whole ? kv : o.head_dim, dtype);
}

// RMSNorm over the whole query and the whole key projection (OLMoE), before the heads are split.
Var Attention::whole_norm(const Var& qkv, const kernels::AttentionShape& shape) const {
  const int64_t q = shape.heads * shape.head_dim, kv = shape.kv_heads * shape.head_dim;
  const Var query = rms_norm(columns(qkv, 0, q), q_norm_, eps_);
  const Var key = rms_norm(columns(qkv, q, kv), k_norm_, eps_);
  return join_columns({query, key, columns(qkv, q + kv, kv)});
}

Var Attention::operator()(const Var& x, const kernels::AttentionShape& shape, const RopeTable& rope,
                          const Tensor& documents, const Tensor& cache, int64_t cached) const {
  Var qkv = linear(x, qkv_, bias_);
  if (qk_norm_ == QkNorm::kWhole) qkv = whole_norm(qkv, shape);
  const bool per_head = qk_norm_ == QkNorm::kPerHead;
  qkv = norm_rope(std::move(qkv), per_head ? q_norm_ : Var(), per_head ? k_norm_ : Var(), rope, shape, eps_);
  if (cache.defined()) cache.rows(cached, shape.seq).copy_from(qkv.value());
  if (cached == 0) return linear(attention(qkv, shape, documents), out_);
  kernels::AttentionShape all = shape;
  all.seq += cached;
  return linear(Var(attention_of_last(cache.rows(0, all.seq), all)), out_);
}

}  // namespace switchyard
