#include "trainer/model/transformer.h"

#include <bit>
#include <cmath>

namespace switchyard {

namespace {

std::string layer_prefix(int64_t layer) { return "model.layers." + std::to_string(layer) + "."; }

Var add_table(ParameterStore& store, const std::string& name, int64_t rows, int64_t cols, DType dtype,
              double stddev) {
  return store.add({.name = name,
                    .shape = {rows, cols},
                    .pieces = {{name, 0, {rows, cols}}},
                    .dtype = dtype,
                    .stddev = stddev});
}

MoeLayerSpec moe_spec(const ModelOptions& o, int64_t layer, DType dtype) {
  const double small = o.initializer_range * o.expert_initializer_scale;
  return {.layer = layer,
          .hidden = o.hidden_size,
          .dense_intermediate = o.intermediate_size,
          .dtype = dtype,
          .router_stddev = small,
          .expert_stddev = small,
          .dense_stddev = o.initializer_range,
          .prefix = layer_prefix(layer) + "mlp.",
          .moe_layers = o.moe_layers()};
}

SumAndNorm normed(const Residual& x, const Var& w, double eps) {
  if (x.branch.defined()) return add_rms_norm(x.stream, x.branch, w, eps);
  return {x.stream, rms_norm(x.stream, w, eps)};
}

}  // namespace

DecoderLayer::DecoderLayer(ParameterStore& store, const ModelOptions& o, int64_t layer, DType dtype,
                           const Axis& ep, std::shared_ptr<ExchangeMeter> meter)
    : eps_(o.rms_norm_eps),
      input_norm_(store.add_norm(layer_prefix(layer) + "input_layernorm.weight", o.hidden_size, dtype)),
      post_norm_(
          store.add_norm(layer_prefix(layer) + "post_attention_layernorm.weight", o.hidden_size, dtype)),
      attention_(store, o, layer_prefix(layer) + "self_attn.", dtype) {
  if (o.is_moe(layer)) {
    moe_.emplace(store, *o.moe, moe_spec(o, layer, dtype), ep, std::move(meter));
  } else {
    dense_.emplace(store, layer_prefix(layer) + "mlp.", o.hidden_size, o.intermediate_size, dtype,
                   o.initializer_range);
  }
  const std::string prefix = layer_prefix(layer);
  const std::vector<Parameter>& all = store.parameters();
  // The last that were added.
  for (size_t i = all.size(); i > 0 && all[i - 1].spec.name.starts_with(prefix); --i)
    parameters_.insert(parameters_.begin(), all[i - 1].var);
}

Residual DecoderLayer::operator()(const Residual& x, const kernels::AttentionShape& shape,
                                  const RopeTable& rope, const Tensor& documents, ForwardContext& context,
                                  const Tensor& cache, int64_t cached) const {
  const SumAndNorm in = normed(x, input_norm_, eps_);
  const Var attended = attention_(in.norm, shape, rope, documents, cache, cached);
  const SumAndNorm post = add_rms_norm(in.sum, attended, post_norm_, eps_);
  return {post.sum, moe_ ? (*moe_)(post.norm, context) : (*dense_)(post.norm)};
}

Transformer::Transformer(ParameterStore& store, const ModelOptions& o, DType dtype, const Axis& ep)
    : options_(o), dtype_(dtype), meter_(std::make_shared<ExchangeMeter>()) {
  embedding_ =
      add_table(store, "model.embed_tokens.weight", o.vocab_size, o.hidden_size, dtype, o.initializer_range);
  for (int64_t i = 0; i < o.num_layers; ++i) layers_.emplace_back(store, o, i, dtype, ep, meter_);
  norm_ = store.add_norm("model.norm.weight", o.hidden_size, dtype);
  head_ = o.tie_embeddings
              ? embedding_
              : add_table(store, "lm_head.weight", o.vocab_size, o.hidden_size, dtype, o.initializer_range);
}

RopeTable Transformer::rope(int64_t seq, Device device) const {
  if (rope_.empty() || rope_.back().cos.dim(0) < seq) {
    const auto rows = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(seq)));
    rope_.push_back(make_rope_table(rows, options_.rotary_dim(), options_.rope_theta, dtype_, device));
  }
  return rope_.back();
}

Residual Transformer::run_layer(const DecoderLayer& layer, const Residual& x,
                                const kernels::AttentionShape& shape, const Tensor& documents,
                                ForwardContext& context) const {
  const RopeTable table = rope(shape.seq, x.stream.device());
  if (!options_.recompute || !grad_enabled()) return layer(x, shape, table, documents, context);
  // One tensor a layer is kept, so the branch is added here. Auxiliary losses leave the recomputed part as
  // results of their own.
  auto f = [&layer, table, shape, documents, base = context](const Vars& inputs) {
    ForwardContext inner = base;
    inner.losses.clear();
    const Residual y = layer({inputs[0], {}}, shape, table, documents, inner);
    Vars results{add(y.stream, y.branch)};
    results.insert(results.end(), inner.losses.begin(), inner.losses.end());
    return results;
  };
  Vars results = recompute(f, {x.stream}, layer.parameters());
  context.losses.insert(context.losses.end(), results.begin() + 1, results.end());
  return {results[0], {}};
}

SequenceCache Transformer::make_cache(int64_t capacity, Device device) const {
  const int64_t row = (options_.num_attention_heads + 2 * options_.num_key_value_heads) * options_.head_dim;
  SequenceCache cache;
  for (size_t i = 0; i < layers_.size(); ++i)
    cache.rows.push_back(Tensor::empty({capacity, row}, dtype_, device));
  return cache;
}

DeviceBatch Transformer::on_device(const std::vector<int32_t>& ids) const {
  return on_device(Batch{.ids = ids,
                         .targets = std::vector<int32_t>(ids.size(), -1),
                         .documents = {},
                         .sequences = 1,
                         .sequence_length = std::ssize(ids)});
}

Var Transformer::hidden(const DeviceBatch& batch, ForwardContext& context, SequenceCache* cache) const {
  const kernels::AttentionShape shape{.batch = batch.sequences,
                                      .seq = batch.sequence_length,
                                      .heads = options_.num_attention_heads,
                                      .kv_heads = options_.num_key_value_heads,
                                      .head_dim = options_.head_dim,
                                      .scale = static_cast<float>(1 / std::sqrt(double(options_.head_dim)))};
  context.sequences = batch.sequences;
  Residual x{embedding(embedding_, batch.ids), {}};
  const Tensor documents = options_.mask_documents ? batch.documents : Tensor();
  if (cache != nullptr) {
    CHECK(batch.sequences == 1 && (cache->tokens == 0 || shape.seq == 1), cache->tokens, " cached, ",
          shape.seq, " new");
    RopeTable table = rope(cache->tokens + shape.seq, x.stream.device());
    table = {table.cos.rows(cache->tokens, shape.seq), table.sin.rows(cache->tokens, shape.seq),
             table.rotary_dim};
    for (size_t i = 0; i < layers_.size(); ++i)
      x = layers_[i](x, shape, table, documents, context, cache->rows[i], cache->tokens);
    cache->tokens += shape.seq;
  } else {
    for (const DecoderLayer& layer : layers_) x = run_layer(layer, x, shape, documents, context);
  }
  return normed(x, norm_, options_.rms_norm_eps).norm;
}

LossSum Transformer::loss(const DeviceBatch& batch, ForwardContext& context, double scale) const {
  return linear_cross_entropy(hidden(batch, context), head_, batch.targets, scale);
}

Tensor Transformer::logits(const Tensor& hidden, int64_t begin, int64_t rows) const {
  NoGrad guard;
  const Var z = cast(linear(Var(hidden.rows(begin, rows)), head_), DType::kF32);
  return z.value().to(Device::kCpu);
}

std::vector<MoeLayer*> Transformer::moe_layers() {
  std::vector<MoeLayer*> found;
  for (DecoderLayer& layer : layers_) {
    if (layer.moe() != nullptr) found.push_back(layer.moe());
  }
  return found;
}

}  // namespace switchyard
