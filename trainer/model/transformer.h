// The decoder-only transformer: embedding, layers of attention and feed-forward (dense or MoE), norm, head.
// Qwen3-MoE semantics by default; tensors have Hugging Face's names.
#pragma once

#include <memory>
#include <optional>

#include "core/nn/feed_forward.h"
#include "parallel/expert/moe_layer.h"
#include "trainer/model/device_batch.h"
#include "trainer/model/options.h"

namespace switchyard {

// What the layers keep of the tokens of one sequence, so that the next token alone is computed: per layer the
// packed rows (kernels/attention.h) [capacity, row].
struct SequenceCache {
  std::vector<Tensor> rows;
  int64_t tokens = 0;  // so far
};

// q, k, v projections in one product, norm and rotation in one pass, flash attention, output projection.
class Attention {
 public:
  Attention(ParameterStore& store, const ModelOptions& options, const std::string& prefix, DType dtype);
  Var operator()(const Var& x, const kernels::AttentionShape& shape, const RopeTable& rope,
                 const Tensor& documents, const Tensor& cache, int64_t cached) const;

 private:
  Var whole_norm(const Var& qkv, const kernels::AttentionShape& shape) const;

  QkNorm qk_norm_;
  double eps_;
  Var qkv_, bias_, out_;
  Var q_norm_, k_norm_;
};

// The residual stream and what the last block adds to it (undefined: nothing): the
// next norm adds them as it goes.
struct Residual {
  Var stream, branch;
};

class DecoderLayer {
 public:
  DecoderLayer(ParameterStore& store, const ModelOptions& options, int64_t layer, DType dtype, const Axis& ep,
               std::shared_ptr<ExchangeMeter> meter);
  Residual operator()(const Residual& x, const kernels::AttentionShape& shape, const RopeTable& rope,
                      const Tensor& documents, ForwardContext& context, const Tensor& cache = {},
                      int64_t cached = 0) const;
  MoeLayer* moe() { return moe_ ? &*moe_ : nullptr; }
  const Vars& parameters() const { return parameters_; }

 private:
  double eps_;
  Var input_norm_, post_norm_;
  Attention attention_;
  std::optional<FeedForward> dense_;
  std::optional<MoeLayer> moe_;
  Vars parameters_;  // for recompute()
};

class Transformer {
 public:
  // Registers its parameters with `store`, which the caller materializes. dtype: of activations and weights.
  Transformer(ParameterStore& store, const ModelOptions& options, DType dtype, const Axis& ep);

  // After the final norm: [tokens, hidden]. With a cache, under NoGrad: `batch` is one sequence's first
  // tokens, or its next one.
  Var hidden(const DeviceBatch& batch, ForwardContext& context, SequenceCache* cache = nullptr) const;
  SequenceCache make_cache(int64_t capacity, Device device) const;
  DeviceBatch on_device(const Batch& batch) const { return {batch, options_.vocab_size, device()}; }
  DeviceBatch on_device(const std::vector<int32_t>& ids) const;  // one sequence without targets
  // Cross-entropy of the batch's targets, times `scale`.
  LossSum loss(const DeviceBatch& batch, ForwardContext& context, double scale) const;
  // float32 logits of `rows` rows of hidden() from `begin`, on the host: [rows, vocab].
  Tensor logits(const Tensor& hidden, int64_t begin, int64_t rows) const;

  const ModelOptions& options() const { return options_; }
  Device device() const { return embedding_.device(); }
  std::vector<MoeLayer*> moe_layers();
  ExchangeMeter& meter() const { return *meter_; }

 private:
  RopeTable rope(int64_t seq, Device device) const;
  Residual run_layer(const DecoderLayer& layer, const Residual& x, const kernels::AttentionShape& shape,
                     const Tensor& documents, ForwardContext& context) const;

  ModelOptions options_;
  DType dtype_;
  std::shared_ptr<ExchangeMeter> meter_;
  Var embedding_, norm_, head_;
  std::vector<DecoderLayer> layers_;
  // Of the longest sequence seen, rounded up, is the last. Those before it stay: work that is recorded reads
  // them where they are.
  mutable std::vector<RopeTable> rope_;
};

}  // namespace switchyard
