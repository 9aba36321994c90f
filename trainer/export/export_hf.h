// A checkpoint becomes a Hugging Face model folder.
#pragma once

#include "kernels/dtype.h"
#include "trainer/files/files.h"

namespace switchyard {

struct HfExport {
  fs::path checkpoint;
  fs::path out;               // must not exist, or be an empty directory
  std::string arch = "auto";  // or a model_type
  DType dtype = DType::kF32;  // or BF16
  int64_t shard_bytes = 5'000'000'000;
};

// Writes the weights per expert, config.json, generation_config.json and, where there is one, the tokenizer.
// Returns the model_type.
std::string export_hf(const HfExport& job);

}  // namespace switchyard
