#include "tests/fuzz/seeds.h"

#include <zlib.h>
#include <zstd.h>

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>

#include "trainer/checkpoint/manifest.h"
#include "trainer/config.h"
#include "trainer/data/bpe_trainer.h"
#include "trainer/data/sidecar.h"
#include "trainer/files/files.h"
#include "trainer/metrics/step_metrics.h"

namespace switchyard::fuzz {
namespace {

using Json = nlohmann::ordered_json;

const fs::path kRoot = SWITCHYARD_SOURCE_DIR;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string safetensors_of(const Json& header, size_t data_bytes) {
  const std::string text = header.dump();
  return bytes_of<uint64_t>({text.size()}) + text + std::string(data_bytes, '\1');
}

constexpr char kText[] =
    "The first line of a text.\nA second one, with words: der B\xc3\xa4r, 1234 things.\n\nAnd a third.\n";

// A field of a protobuf message: a string, or a number.
std::string message_field(int number, const std::string& bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}

std::string number_field(int number, int value) {
  std::string text;
  for (int tag = number << 3; tag > 0; tag >>= 7)
    text += static_cast<char>((tag & 0x7F) | (tag > 0x7F ? 0x80 : 0));
  return text + static_cast<char>(value);
}

std::string piece(const std::string& text, float score, int type) {
  return message_field(1, message_field(1, text) + '\x15' + bytes_of<float>({score}) + number_field(3, type));
}

constexpr char kFallbackTokenizer[] = R"({
  "added_tokens": [{"id": 0, "content": "<unk>", "special": true}],
  "normalizer": {"type": "Sequence", "normalizers": [
    {"type": "NFC"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
  "pre_tokenizer": null,
  "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
    "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "<0xC3>": 4, "<0xFF>": 5, "\u2581": 6, "a": 7, "b": 8,
              "ab": 9, "\u2581ab": 10},
    "merges": [["a", "b"], ["\u2581", "ab"]]}})";

}  // namespace

std::vector<std::string> safetensors_seeds() {
  return {safetensors_of({{"__metadata__", {{"format", "pt"}}},
                          {"a", {{"dtype", "F32"}, {"shape", {2, 3}}, {"data_offsets", {0, 24}}}},
                          {"b", {{"dtype", "BF16"}, {"shape", {4}}, {"data_offsets", {24, 32}}}}},
                         32),
          safetensors_of({{"c", {{"dtype", "I64"}, {"shape", Json::array()}, {"data_offsets", {0, 8}}}},
                          {"d", {{"dtype", "U8"}, {"shape", {0, 7}}, {"data_offsets", {8, 8}}}}},
                         8)};
}

std::string index_seed() {
  const char* first = "model-00001-of-00002.safetensors";
  const char* second = "model-00002-of-00002.safetensors";
  return Json{{"metadata", {{"total_size", 40}}},
              {"weight_map", {{"a", first}, {"b", first}, {"c", second}, {"d", second}}}}
      .dump(2);
}

std::vector<std::string> hf_config_seeds() {
  std::vector<std::string> seeds;
  for (const char* name : {"dense", "moe", "grouped"})
    seeds.push_back(read_file(kRoot / "tests/golden" / name / "model/config.json"));
  return seeds;
}

std::string manifest_seed() {
  Manifest manifest;
  manifest.step = 100;
  manifest.files["model.txtpb"] = {.bytes = 12, .xxh3 = 1};
  manifest.files["weights-00000-of-00001.safetensors"] = {.bytes = 1234, .xxh3 = 2};
  manifest.tensors["model.norm.weight"] = {"weights-00000-of-00001.safetensors", FileDType::kF32, {64}};
  manifest.tensors["lm_head.weight"] = {"weights-00000-of-00001.safetensors", FileDType::kF32, {257, 64}};
  return to_text(manifest);
}

void sign_manifest(std::string& text) {
  const size_t line = text.rfind("  \"checksum\"");
  if (line == std::string::npos) return;
  text.resize(line);
  text += "  \"checksum\": \"xxh3-64:" + hex_of(xxh3_of(text)) + "\"\n}\n";
}

std::string model_text_seed() { return model_to_text(load_config(kRoot / "configs/tiny.txtpb").model); }

std::vector<std::string> config_seeds() {
  return {read_file(kRoot / "configs/tiny.txtpb"), read_file(kRoot / "configs/quickstart.txtpb"),
          "model { hidden_size: 8 num_layers: 1 num_attention_heads: 2 intermediate_size: 8 }\n"
          "data { blend { path: 'a' weight: 0.7 } blend [{ path: 'b', weight: 2 }, { path: 'c' }] }\n"};
}

std::vector<std::string> override_seeds() {
  return {"optimizer.lr=3e-4", "sample.prompts=[a, 'b, c']", "data.blend+={path: 'x' weight: 2}",
          "optimizer={lr: 1 eps: 1e-8}", "model.moe.balance=[AUX, KL]"};
}

std::vector<std::string> tokenizer_seeds() {
  BpeTrainer trainer;
  trainer.add(trainer.count_words(std::string(kText) + kText));
  return {trainer.train(270), kFallbackTokenizer};
}

std::string sentencepiece_seed() {
  std::string bytes = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  for (const char* name : {"<0x00>", "<0x0A>", "<0xC3>", "<0xFF>"}) bytes += piece(name, 0, 6);
  float score = 0;
  for (const char* text : {"ab", "abc", "bc", "a", "b", "c", "\xe2\x96\x81"})
    bytes += piece(text, score--, 1);
  return bytes + message_field(2, number_field(3, 2) + number_field(35, 1)) +
         message_field(3, number_field(3, 1) + number_field(4, 0));
}

std::string megatron_tokens() { return bytes_of<uint16_t>({1, 2, 3, 4, 5, 6, 7, 8, 9, 300}); }

std::string megatron_index_seed() {
  return std::string("MMIDIDX\0\0", 9) + bytes_of<uint64_t>({1}) + '\x08' + bytes_of<uint64_t>({3, 3}) +
         bytes_of<int32_t>({4, 5, 1}) + bytes_of<int64_t>({0, 8, 18}) + bytes_of<int64_t>({0, 2, 3});
}

std::vector<std::string> bare_token_seeds() {
  std::vector<int32_t> narrow(256), wide(256);
  narrow[0] = 20240520, narrow[1] = 1, narrow[2] = 10;
  wide[0] = 20240801, wide[1] = 7, wide[2] = 2;
  return {megatron_tokens(), bytes_of(narrow) + megatron_tokens(),
          bytes_of(wide) + bytes_of<uint32_t>({5, 6})};
}

std::string sidecar_seed() {
  return to_json(
      Sidecar{.tokenizer = "byte", .vocab_size = 257, .documents = 2, .tokens = 10, .sources = {"a.txt"}});
}

std::string metrics_seed() {
  StepMetrics metrics;
  LayerLoad load;
  load.assigned = {3, 5, 0, 8};
  metrics.layers = {load, load};
  std::string text;
  for (metrics.step = 1; metrics.step <= 3; ++metrics.step) text += to_json(metrics) + "\n";
  return text;
}

std::string gzip_seed() {
  std::string packed(512, '\0');
  z_stream stream{};
  constexpr int kGzip = 15 + 16;
  CHECK(deflateInit2(&stream, 6, Z_DEFLATED, kGzip, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string text = kText;
  stream.next_in = reinterpret_cast<Bytef*>(text.data());
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string zstd_seed() {
  const std::string text = kText;
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  const size_t size = ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3);
  CHECK(!ZSTD_isError(size));
  packed.resize(size);
  return packed;
}

std::string jsonl_seed() {
  return "{\"text\": \"one\"}\n{\"text\": \"two\\n\\u00e4\", \"id\": 3}\n\n{\"text\": \"\"}\n";
}

}  // namespace switchyard::fuzz
