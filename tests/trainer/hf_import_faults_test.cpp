// Whatever is wrong in a Hugging Face folder is refused with the file's name and nothing left behind.
#include "tests/trainer/hf_folders.h"

namespace switchyard::test {
namespace {

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
      {"rope_scaling", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}},
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

// Programs differ in which of the two counts.
TEST_F(HfFolders, ARopeScalingThatSaysSomethingElseThanRopeParametersIsRefused) {
  write_model(Arch::kLlama);
  json config = config_;
  config["rope_theta"] = 1e4;
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  config["rope_scaling"] = {{"rope_type", "default"}};
  write_config(config);
  expect_refused(Fault::kUsage,
                 {"config.json", "rope_scaling makes rope_theta 10000, without it it is 500000"});
}

TEST_F(HfFolders, AConfigThatIsNoFileIsAUsageFault) {
  write_model(Arch::kMixtral);
  fs::remove(hf() / "config.json");
  fs::create_directory(hf() / "config.json");
  expect_refused(Fault::kUsage, {"config.json: is not a regular file"});
}

TEST_F(HfFolders, ATiedHeadThatIsNotTheEmbeddingIsRefused) {
  write_model(Arch::kQwen3);
  json config = config_;
  config["tie_word_embeddings"] = true;
  write_config(config);
  expect_refused(Fault::kData, {"model.safetensors", "lm_head.weight", "differs from the embedding"});
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

}  // namespace
}  // namespace switchyard::test
