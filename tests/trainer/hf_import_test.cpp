// Hugging Face folders: every architecture goes through unchanged, and whatever is wrong in a folder is
// refused with the file's name and nothing left behind.
#include "trainer/export/import_hf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/trainer/temporary_folder.h"
#include "trainer/checkpoint/store.h"
#include "trainer/config.h"
#include "trainer/export/export_gguf.h"
#include "trainer/export/export_hf.h"
#include "trainer/export/hf_config.h"
#include "trainer/export/tensor_list.h"

namespace switchyard {
namespace {

using nlohmann::json;

ModelOptions tiny(Arch arch) {
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
TensorSource counting(const std::string& name, FileDType dtype, const std::vector<int64_t>& shape) {
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

TEST_F(HfFolders, EveryArchitectureComesBackWithItsNamesBitsAndConfig) {
  for (const ArchInfo& info : all_archs()) {
    SCOPED_TRACE(info.model_type);
    write_model(info.arch);
    import_hf(hf(), to());
    const fs::path back = fs::path(folder_ / "back");
    EXPECT_EQ(export_hf({.checkpoint = to(), .out = back}), info.model_type);
    const SafetensorsFile before(hf() / "model.safetensors"), after(back / "model.safetensors");
    EXPECT_EQ(before.bytes(), after.bytes());
    EXPECT_EQ(model_to_text(read_hf_config(hf() / "config.json").options),
              model_to_text(read_hf_config(back / "config.json").options));
    EXPECT_EQ(model_to_text(read_hf_config(hf() / "config.json").options), model_to_text(tiny(info.arch)));
    fs::remove_all(to());
    fs::remove_all(back);
  }
}

TEST_F(HfFolders, NarrowFloatsAreStoredAsTheirExactFloat32) {
  for (const FileDType dtype : {FileDType::kBF16, FileDType::kF16, FileDType::kF64}) {
    write_model(Arch::kMixtral, dtype);
    import_hf(hf(), to());
    const SafetensorsFile source(hf() / "model.safetensors");
    const TensorView& view = source.tensors().at("model.norm.weight");
    std::vector<float> expected(8), stored(8);
    convert(dtype, view.bytes.data(), FileDType::kF32, expected.data(), 8);
    CheckpointReader(to()).read("model.norm.weight", stored.data(), DType::kF32);
    EXPECT_EQ(stored, expected);
    fs::remove_all(to());
  }
}

TEST_F(HfFolders, ShardsAreWrittenAndReadBack) {
  write_model(Arch::kQwen3Moe);
  import_hf(hf(), to());
  const fs::path parts = fs::path(folder_ / "parts");
  export_hf({.checkpoint = to(), .out = parts, .shard_bytes = 1500});
  EXPECT_TRUE(fs::exists(parts / "model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(parts / "model.safetensors"));
  const fs::path again = fs::path(folder_ / "again"), whole = fs::path(folder_ / "whole");
  import_hf(parts, again);
  export_hf({.checkpoint = again, .out = whole});
  EXPECT_EQ(read_file(whole / "model.safetensors"), read_file(hf() / "model.safetensors"));
}

TEST_F(HfFolders, TheAcceptedSpellingsOfAConfigMeanTheSame) {
  write_model(Arch::kQwen3Moe);
  const std::string meant = model_to_text(read_hf_config(hf() / "config.json").options);
  const auto expect_same = [&](const char* what, json config) {
    write_config(config);
    EXPECT_EQ(model_to_text(read_hf_config(hf() / "config.json").options), meant) << what;
  };
  json config = config_;
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", config["rope_theta"]}};
  config.erase("rope_theta");
  expect_same("rope_parameters", config);
  config = config_;
  config["num_local_experts"] = config["num_experts"];
  config.erase("num_experts");
  expect_same("num_local_experts", config);
  config = config_;
  config["head_dim"] = nullptr;
  expect_same("head_dim null", config);
  config.erase("head_dim");
  expect_same("head_dim absent", config);
  config["dtype"] = "float32";
  config.erase("torch_dtype");
  config["some_new_key"] = {1, 2};
  expect_same("dtype, unknown keys", config);
}

TEST_F(HfFolders, Qwen2MoeHasBiasesUnlessItSaysNot) {
  write_model(Arch::kQwen2Moe);
  config_.erase("qkv_bias");
  write_config(config_);
  EXPECT_TRUE(read_hf_config(hf() / "config.json").options.qkv_bias);
}

TEST_F(HfFolders, AConfigThatCannotBeHonouredIsAUsageFault) {
  write_model(Arch::kQwen3Moe);
  const std::vector<std::pair<const char*, json>> cases = {
      {"model_type", "gpt2"},
      {"model_type", nullptr},
      {"model_type", 3},
      {"hidden_act", "gelu"},
      {"hidden_act", 1},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}},
      {"rope_scaling", {{"type", "linear"}}},
      {"rope_scaling", "yarn"},
      {"rope_parameters", {{"rope_type", "llama3"}}},
      {"rope_parameters", {{"rope_theta", -1}}},
      {"rope_parameters", {{"full_attention", json::object()}}},
      {"rope_theta", 0},
      {"rope_theta", "1e6"},
      {"partial_rotary_factor", 0.5},
      {"partial_rotary_factor", 2},
      {"hidden_size", 0},
      {"hidden_size", -8},
      {"hidden_size", 8.5},
      {"hidden_size", "8"},
      {"hidden_size", true},
      {"hidden_size", 1e300},
      {"hidden_size", nullptr},
      {"hidden_size", 18446744073709551615u},
      {"vocab_size", nullptr},
      {"num_hidden_layers", 1000000000},
      {"num_attention_heads", nullptr},
      {"num_key_value_heads", 3},
      {"num_key_value_heads", 0},
      {"head_dim", 3},
      {"num_experts", nullptr},
      {"num_experts", 0},
      {"num_experts", 1000000000000},
      {"num_local_experts", 5},
      {"num_experts_per_tok", 5},
      {"num_experts_per_tok", nullptr},
      {"moe_intermediate_size", nullptr},
      {"norm_topk_prob", "true"},
      {"mlp_only_layers", {"1"}},
      {"mlp_only_layers", {-1}},
      {"mlp_only_layers", 1},
      {"decoder_sparse_step", 0},
      {"rms_norm_eps", 0},
      {"rms_norm_eps", "x"},
      {"rms_norm_eps", 2},
      {"num_experts", 4097},
      {"rope_scaling", {{"rope_type", "default"}, {"rope_theta", 77}}},
      {"tie_word_embeddings", 1},
      {"attention_bias", true},
      {"use_sliding_window", true},
      {"layer_types", {"sliding_attention", "full_attention"}},
      {"quantization_config", {{"bits", 4}}}};
  for (const auto& [key, value] : cases) {
    SCOPED_TRACE(std::string(key) + " " + value.dump());
    json config = config_;
    config[key] = value;
    write_config(config);
    expect_refused(Fault::kUsage, {"config.json"});
  }
}

TEST_F(HfFolders, WhatMeansNothingToTransformersMeansNothingHere) {
  write_model(Arch::kQwen3Moe);
  json config = config_;
  config["mlp_only_layers"] = {1, 1, 99};
  config["intermediate_size"] = 8;
  write_config(config);
  EXPECT_EQ(read_hf_config(hf() / "config.json").options.dense_layers, std::vector<int64_t>{1});
  config["num_key_value_heads"] = nullptr;  // as many as there are heads
  write_config(config);
  const ModelOptions options = read_hf_config(hf() / "config.json").options;
  EXPECT_EQ(options.num_key_value_heads, options.num_attention_heads);
}

TEST_F(HfFolders, WhatAKilledExportLeftIsNotCarriedOver) {
  write_model(Arch::kMixtral);
  import_hf(hf(), to());
  fs::create_directory(fs::path(folder_ / ".gguf.tmp"));
  write_file(fs::path(folder_ / ".gguf.tmp/stale.gguf"), "x");
  export_gguf({.checkpoint = to(), .out = fs::path(folder_ / "gguf")});
  EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(folder_ / "gguf")), {}), 1);
}

TEST_F(HfFolders, AFileIsNoTargetWhateverItsSpelling) {
  write_model(Arch::kMixtral);
  import_hf(hf(), to());
  write_file(fs::path(folder_ / "file"), "mine");
  for (const char* name : {"file", "file/"}) {
    EXPECT_EQ(fault_of([&] { export_hf({.checkpoint = to(), .out = folder_ / name}); }, "is no directory"),
              Fault::kUsage);
    EXPECT_EQ(read_file(fs::path(folder_ / "file")), "mine");
  }
}

TEST_F(HfFolders, ABrokenConfigFileIsAUsageFault) {
  write_model(Arch::kMixtral);
  for (const char* text : {"", "[]", "3", "{", "{\"a\":1,}",
                           "{\"model_type\":\"mixtral\",\"model_type\":\"mixtral\"}", "\xff"}) {
    write_file(hf() / "config.json", text);
    expect_refused(Fault::kUsage, {"config.json"});
  }
  fs::remove(hf() / "config.json");
  expect_refused(Fault::kUsage, {"config.json"});
}

TEST_F(HfFolders, WrongTensorsAreADataFault) {
  write_model(Arch::kMixtral);
  const std::string expert = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
  const auto refuse = [&](const std::function<void(std::vector<TensorSource>&, TensorSource&)>& spoil,
                          const std::string& part) {
    std::vector<TensorSource> all = tensors(Arch::kMixtral, tiny(Arch::kMixtral));
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const TensorSource& t) { return t.name == expert; });
    spoil(all, *found);
    write_safetensors(hf() / "model.safetensors", std::move(all));
    expect_refused(Fault::kData, {"model.safetensors", part});
  };
  using All = std::vector<TensorSource>;
  refuse(
      [&](All& all, TensorSource& t) {
        std::swap(t, all.back());
        all.pop_back();
      },
      expert + "\" is missing");
  refuse([](All& all, TensorSource&) { all.push_back(counting("extra", FileDType::kF32, {1})); },
         "\"extra\" is unknown");
  refuse(
      [](All& all, TensorSource&) {
        all.push_back(counting("model.layers.2.input_layernorm.weight", FileDType::kF32, {8}));
      },
      "is unknown");
  refuse([&](All&, TensorSource& t) { t = counting(expert, FileDType::kF32, {6, 8}); }, "[6, 8]");
  refuse([&](All&, TensorSource& t) { t = counting(expert, FileDType::kF32, {48}); }, "[48]");
  refuse([&](All&, TensorSource& t) { t = counting(expert, FileDType::kF32, {8, 6, 1}); }, "[8, 6, 1]");
  for (const FileDType dtype :
       {FileDType::kI64, FileDType::kU8, FileDType::kBool, FileDType::kF8E4M3, FileDType::kC64})
    refuse([&](All&, TensorSource& t) { t = counting(expert, dtype, {8, 6}); }, std::string(name_of(dtype)));
}

TEST_F(HfFolders, AMissingOrDamagedWeightsFileIsADataFault) {
  write_model(Arch::kMixtral);
  const std::string bytes = read_file(hf() / "model.safetensors");
  for (const size_t size : {size_t{0}, size_t{4}, size_t{100}, bytes.size() - 1}) {
    write_file(hf() / "model.safetensors", bytes.substr(0, size));
    expect_refused(Fault::kData, {"model.safetensors"});
  }
  fs::remove(hf() / "model.safetensors");
  expect_refused(Fault::kData, {"model.safetensors"});
  fs::create_directory(hf() / "model.safetensors");
  expect_refused(Fault::kData, {"model.safetensors"});
}

TEST_F(HfFolders, AnIndexThatDoesNotMatchItsShardsIsADataFault) {
  write_model(Arch::kMixtral);
  fs::rename(hf() / "model.safetensors", hf() / "part.safetensors");
  json map = json::object();
  for (const TensorSource& t : tensors(Arch::kMixtral, tiny(Arch::kMixtral)))
    map[t.name] = "part.safetensors";
  const auto refuse = [&](const json& index) {
    write_file(hf() / "model.safetensors.index.json",
               index.is_string() ? index.get<std::string>() : index.dump());
    expect_refused(Fault::kData, {"/hf/"});
  };
  refuse({{"weight_map", json::object()}});
  refuse(json::object());
  refuse({{"weight_map", 3}});
  refuse("{\"weight_map\":{},\"weight_map\":{}}");
  refuse("{\"weight_map\":");
  for (const json& file :
       {json("../part.safetensors"), json("/etc/passwd"), json("sub/part.safetensors"), json(".."), json(""),
        json("."), json("nothing.safetensors"), json("config.json"), json(1), json(nullptr)}) {
    json wrong = map;
    wrong["model.norm.weight"] = file;
    refuse({{"weight_map", wrong}});
  }
  json missing = map, added = map;
  missing.erase("model.norm.weight");
  refuse({{"weight_map", missing}});
  added["extra"] = "part.safetensors";
  refuse({{"weight_map", added}});
  write_file(hf() / "model.safetensors.index.json", json{{"weight_map", map}}.dump());
  import_hf(hf(), to());
}

TEST_F(HfFolders, AnExistingTargetIsNotTouched) {
  write_model(Arch::kMixtral);
  fs::create_directories(to());
  write_file(to() / "mine", "x");
  EXPECT_EQ(fault_of([&] { import_hf(hf(), to()); }, "not empty"), Fault::kUsage);
  EXPECT_EQ(read_file(to() / "mine"), "x");
  fs::remove(to() / "mine");
  import_hf(hf(), to());  // an empty directory will do
}

TEST_F(HfFolders, WhatATargetCannotHoldIsNamedWithWhoCan) {
  write_model(Arch::kGlm4Moe);
  import_hf(hf(), to());
  const fs::path out = fs::path(folder_ / "x");
  EXPECT_EQ(fault_of([&] { export_hf({.checkpoint = to(), .out = out, .arch = "qwen3_moe"}); }, "SIGMOID"),
            Fault::kUsage);
  EXPECT_EQ(fault_of([&] { export_hf({.checkpoint = to(), .out = out, .arch = "mixtral"}); }, "glm4_moe"),
            Fault::kUsage);
  EXPECT_EQ(fault_of([&] { export_hf({.checkpoint = to(), .out = out, .arch = "gpt"}); }, "gpt"),
            Fault::kUsage);
  EXPECT_EQ(fault_of([&] { export_gguf({.checkpoint = to(), .out = out, .arch = "llama"}); }, "glm4moe"),
            Fault::kUsage);
  EXPECT_FALSE(fs::exists(out));
}

TEST_F(HfFolders, AGgufHoldsTheRowsOfAMixtralInPairs) {
  write_model(Arch::kMixtral);
  import_hf(hf(), to());
  const fs::path out = fs::path(folder_ / "gguf");
  EXPECT_EQ(export_gguf({.checkpoint = to(), .out = out}), "llama");
  EXPECT_EQ(std::distance(fs::directory_iterator(out), {}), 1);
  const std::string file = read_file(out / "model.gguf");
  EXPECT_EQ(file.substr(0, 4), "GGUF");
  const SafetensorsFile source(hf() / "model.safetensors");
  const std::string_view q = source.tensors().at("model.layers.0.self_attn.q_proj.weight").bytes;
  std::string permuted;
  for (const size_t row : {0, 2, 1, 3, 4, 6, 5, 7}) permuted += q.substr(row * 32, 32);
  EXPECT_NE(file.find(permuted), std::string::npos);
}

}  // namespace
}  // namespace switchyard
