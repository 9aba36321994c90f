// A folder as transformers writes it, of any architecture with a few small tensors, for the tests of what
// import takes and refuses.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/trainer/temporary_folder.h"
#include "trainer/checkpoint/store.h"
#include "trainer/config.h"
#include "trainer/export/export_hf.h"
#include "trainer/export/hf_config.h"
#include "trainer/export/import_hf.h"
#include "trainer/export/tensor_list.h"

namespace switchyard::test {

using nlohmann::json;

inline ModelOptions tiny(Arch arch) {
  ModelOptions o;
  o.vocab_size = 11;
  o.hidden_size = 8;
  o.num_layers = o.num_attention_heads = 2;
  o.num_key_value_heads = 1;
  o.head_dim = 4;
  o.qk_norm = QkNorm::kNone;
  if (arch == Arch::kQwen3 || arch == Arch::kQwen3Moe || arch == Arch::kGlm4Moe) o.qk_norm = QkNorm::kPerHead;
  if (arch == Arch::kOlmoe) o.qk_norm = QkNorm::kWhole;
  if (arch == Arch::kQwen3 || arch == Arch::kLlama) {
    o.intermediate_size = 6;
    return o;
  }
  MoeOptions m;
  m.num_experts = 4;
  m.top_k = 2;
  m.moe_intermediate_size = 6;
  if (arch == Arch::kQwen2Moe) {
    m.shared_expert_intermediate_size = 5;
    m.shared_expert_gate = o.qkv_bias = true;
    m.normalize_topk = false;
  }
  if (arch == Arch::kGlm4Moe) {
    m.score_function = kernels::ScoreFunction::kSigmoid;
    m.expert_bias = true;
    m.shared_expert_intermediate_size = 12;
    m.topk_scaling_factor = 1.5;
    o.first_dense_layers = 1;
    o.partial_rotary_factor = 0.5;
    o.intermediate_size = 10;
  }
  if (arch == Arch::kQwen3Moe) {
    o.dense_layers = {1};
    o.intermediate_size = 10;
  }
  o.moe = m;
  return o;
}

// A tensor of counting bytes, which are finite numbers of many bit patterns in every float type.
inline TensorSource counting(const std::string& name, FileDType dtype, const std::vector<int64_t>& shape) {
  std::string bytes(static_cast<size_t>(bytes_of(dtype, element_count(shape))), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>((i * 37 + name.size()) % 61 + 1);
  return {.name = name, .dtype = dtype, .shape = shape, .produce = [bytes](const Emit& emit) {
            emit(bytes.data(), bytes.size());
          }};
}

class HfFolders : public ::testing::Test {
 protected:
  HfFolders() { fs::create_directory(hf()); }

  fs::path hf() const { return fs::path(folder_ / "hf"); }
  fs::path to() const { return fs::path(folder_ / "out/checkpoint"); }

  static std::vector<TensorSource> tensors(Arch arch, const ModelOptions& o,
                                           FileDType dtype = FileDType::kF32) {
    std::vector<TensorSource> all;
    for_each_tensor(o, [&](const TensorSpec& spec) {
      all.push_back(counting(hf_name(arch, spec.name), dtype, spec.shape));
    });
    return all;
  }

  void write_model(Arch arch, FileDType dtype = FileDType::kF32) {
    const ModelOptions o = tiny(arch);
    config_ = json::parse(hf_config_text(arch, o, DType::kF32, json::object()));
    write_config(config_);
    write_safetensors(hf() / "model.safetensors", tensors(arch, o, dtype));
  }

  void write_config(const json& config) { write_file(hf() / "config.json", config.dump()); }

  // The import fails with this fault, says all of `parts` on one line and leaves nothing.
  void expect_refused(Fault fault, const std::vector<std::string>& parts) {
    try {
      import_hf(hf(), to());
      ADD_FAILURE() << "imported: " << parts.back();
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.fault(), fault) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos);
      for (const std::string& part : parts)
        EXPECT_NE(message.find(part), std::string::npos) << part << " in " << message;
    }
    EXPECT_EQ(folder_.entries(), 1u) << "something was left";
    fs::remove_all(fs::path(folder_ / "out"));
  }

  TemporaryFolder folder_;
  json config_;
};

}  // namespace switchyard::test
