// Hugging Face's config.json and ModelOptions.
#pragma once

#include <nlohmann/json.hpp>

#include "kernels/dtype.h"
#include "trainer/export/arch.h"
#include "trainer/files/files.h"

namespace switchyard {

struct HfModel {
  Arch arch;
  ModelOptions options;
  // model_type, max_position_embeddings and token ids: what a later export gives back.
  nlohmann::json source;
  // Layers after the model's own that predict tokens further on: left out, as transformers does.
  int64_t mtp_layers = 0;
};

// Everything that cannot be honoured exactly is Error{kUsage} naming the file and the key.
HfModel read_hf_config(const fs::path& path);

// `source`: as read_hf_config() gave it, or an empty object. dtype: F32 or BF16.
std::string hf_config_text(Arch arch, const ModelOptions& options, DType dtype, const nlohmann::json& source);
std::string hf_generation_config_text(const nlohmann::json& source);

}  // namespace switchyard
