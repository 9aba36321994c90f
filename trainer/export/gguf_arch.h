// The architectures of llama.cpp that hold our models, and their tensors. llama.cpp hard-codes the router's
// normalisation for most of them, so a model goes only where it computes the same.
#pragma once

#include <string>
#include <vector>

#include "trainer/model/options.h"

namespace switchyard {

enum class GgufArch : uint8_t { kQwen3Moe, kLlama, kQwen2Moe, kGlm4Moe, kQwen3 };

const char* name_of(GgufArch arch);

// Why `arch` cannot hold the model; empty if it can.
std::vector<std::string> obstacles(GgufArch arch, const ModelOptions& options);

// As choose_arch(): `wanted` is "auto" or a name. A Hugging Face name ("qwen3_moe", "mixtral") is understood.
GgufArch choose_gguf_arch(const std::string& wanted, const ModelOptions& options);

// A tensor of the file: the checkpoint's tensors that it stacks (experts) or is.
struct GgufTensor {
  std::string name;                  // "blk.0.ffn_up_exps.weight"
  std::vector<int64_t> shape;        // slowest first
  std::vector<std::string> sources;  // in order; none: zeros
  bool keep_f32 = false;             // norms, routers and other one-dimensional tensors
  int64_t permute_heads = 0;         // > 0: rows of a head go from halves to interleaved pairs
};
std::vector<GgufTensor> gguf_tensors(GgufArch arch, const ModelOptions& options);

}  // namespace switchyard
