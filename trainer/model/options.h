// What the model is: a decoder-only transformer with Qwen3-MoE semantics.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/expert/options.h"

namespace switchyard {

enum class QkNorm : uint8_t { kNone, kPerHead, kWhole };  // kWhole: over the whole projection (OLMoE)

struct ModelOptions {
  int64_t vocab_size = 0;  // 0: the data's
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // default: num_attention_heads
  int64_t head_dim = 0;             // default: hidden_size / num_attention_heads
  int64_t intermediate_size = 0;    // of dense layers (and of the hybrid block's dense branch)
  double rope_theta = 10000;
  double partial_rotary_factor = 1;  // the first head_dim * factor components rotate
  double rms_norm_eps = 1e-6;
  bool tie_embeddings = false;
  QkNorm qk_norm = QkNorm::kPerHead;
  bool qkv_bias = false;
  double initializer_range = 0.02;
  double expert_initializer_scale = 1;  // times initializer_range, for experts and router
  bool recompute = false;               // trades compute for memory, layer by layer
  bool mask_documents = false;          // attention stays within a document

  std::optional<MoeOptions> moe;      // none: a dense model
  int64_t first_dense_layers = 0;     // the first n layers are dense
  int64_t moe_layer_interval = 1;     // after those: layer i is MoE iff (i + 1) % interval == 0
  std::vector<int64_t> dense_layers;  // and these are dense as well

  bool is_moe(int64_t layer) const;
  int64_t moe_layers() const;       // how many there are
  bool dense_layers_first() const;  // no MoE layer before a dense one
  int64_t rotary_dim() const;       // components of a head that rotate
};

}  // namespace switchyard
