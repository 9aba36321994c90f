// Hugging Face folders: every architecture goes through unchanged.
#include "trainer/export/import_hf.h"

#include "tests/trainer/hf_folders.h"
#include "trainer/export/export_gguf.h"

namespace switchyard::test {
namespace {

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

// As Qwen3-0.6B is published: tied, and the head in the file all the same.
TEST_F(HfFolders, ATiedHeadMayStandInTheFileAsWell) {
  ModelOptions o = tiny(Arch::kQwen3);
  o.tie_embeddings = true;
  write_file(hf() / "config.json", hf_config_text(Arch::kQwen3, o, DType::kF32, json::object()));
  std::vector<TensorSource> all = tensors(Arch::kQwen3, o);
  TensorSource head = counting("model.embed_tokens.weight", FileDType::kF32, {o.vocab_size, o.hidden_size});
  head.name = "lm_head.weight";
  all.push_back(head);
  write_safetensors(hf() / "model.safetensors", all);
  import_hf(hf(), to());
  EXPECT_FALSE(CheckpointReader(to()).contains("lm_head.weight"));
}

// As GLM-4.5 is published: a layer after the last predicts the token after the next.
TEST_F(HfFolders, LayersThatPredictLaterTokensAreLeftOut) {
  write_model(Arch::kGlm4Moe);
  std::vector<TensorSource> all = tensors(Arch::kGlm4Moe, tiny(Arch::kGlm4Moe));
  const size_t own = all.size();
  all.push_back(counting("model.layers.2.eh_proj.weight", FileDType::kF32, {8, 16}));
  write_safetensors(hf() / "model.safetensors", all);
  expect_refused(Fault::kData, {"model.layers.2.eh_proj.weight", "unknown"});
  json config = config_;
  config["num_nextn_predict_layers"] = 1;
  write_config(config);
  import_hf(hf(), to());
  EXPECT_EQ(CheckpointReader(to()).names().size(), own);
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

// Three letters and a special token that tokenizer.json cannot say the use of.
constexpr char kTokenizer[] =
    R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
  "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"}, "added_tokens": [
  {"id": 3, "content": "<eos>", "special": true}, {"id": 4, "content": "<turn>", "special": true}]})";

TEST_F(HfFolders, TheTokenizerComesAlongAndGoesBack) {
  write_model(Arch::kQwen3);
  write_file(hf() / "tokenizer.json", kTokenizer);
  const auto exported_eos = [&](const char* name, const json& eos) {
    json config = config_;
    if (!eos.is_null()) config["eos_token_id"] = eos;
    write_config(config);
    const fs::path to = fs::path(folder_ / "out") / name, back = fs::path(folder_ / "back") / name;
    import_hf(hf(), to);
    EXPECT_EQ(CheckpointReader(to).text(kTokenizerText), kTokenizer);
    export_hf({.checkpoint = to, .out = back});
    EXPECT_EQ(read_file(back / "tokenizer.json"), kTokenizer);
    return json::parse(read_file(back / "config.json"))["eos_token_id"];
  };
  EXPECT_EQ(exported_eos("none", {}), 3) << "the tokenizer's";
  EXPECT_EQ(exported_eos("special", 4), 4) << "the model's";
  EXPECT_EQ(exported_eos("list", {4, 3}), json({4, 3}));
  EXPECT_EQ(exported_eos("text", 2), 3) << "\"ab\" ends no text";
}

TEST_F(HfFolders, ATokenizerOfAnotherKindIsLeftOut) {
  write_model(Arch::kQwen3);
  write_file(hf() / "tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {}}})");
  import_hf(hf(), to());
  EXPECT_FALSE(CheckpointReader(to()).has_text(kTokenizerText));
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
}  // namespace switchyard::test
