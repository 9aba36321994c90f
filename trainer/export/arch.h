// The Hugging Face architectures that Switchyard reads and writes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/model/options.h"

namespace switchyard {

enum class Arch : uint8_t { kQwen3Moe, kMixtral, kQwen2Moe, kOlmoe, kGlm4Moe, kQwen3, kLlama };

struct ArchInfo {
  Arch arch;
  const char* model_type;  // "qwen3_moe"
  const char* class_name;  // "Qwen3MoeForCausalLM"
  // What config.json means where it leaves a key out.
  int64_t num_key_value_heads;  // 0: num_attention_heads
  double rms_norm_eps, rope_theta, partial_rotary_factor;
};

const std::vector<ArchInfo>& all_archs();
const ArchInfo& info_of(Arch arch);
const ArchInfo* find_arch(std::string_view model_type);  // null: unknown

// The name on disk of the tensor that checkpoints call `name`.
std::string hf_name(Arch arch, const std::string& name);

// Softmax weights sum to 1, whichever way round they are computed.
bool is_normalized(const MoeOptions& moe);

// Why `arch` cannot hold the model: the features' names; empty if it can.
std::vector<std::string> obstacles(Arch arch, const ModelOptions& options);

// `wanted` ("auto" or a model_type) if it can hold the model; `preferred` is tried first for "auto". What
// cannot be held is Error{kUsage} that names the features, and the architectures that can.
Arch choose_arch(const std::string& wanted, std::optional<Arch> preferred, const ModelOptions& options);

}  // namespace switchyard
