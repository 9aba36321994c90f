#include "trainer/data/tokenizer.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "trainer/data/utf8.h"
#include "trainer/files/files.h"

namespace switchyard {

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text.append(bytes_of(id));
  return text;
}

uint64_t Tokenizer::fingerprint() const { return xxh3_of(to_json()); }

bool same_vocabulary(const Tokenizer& a, const Tokenizer& b) {
  if (a.vocab_size() != b.vocab_size()) return false;
  for (int32_t id = 0; id < a.vocab_size(); ++id)
    if (a.bytes_of(id) != b.bytes_of(id)) return false;
  return true;
}

ByteTokenizer::ByteTokenizer() : bytes_(256, '\0') {
  for (int byte = 0; byte < 256; ++byte) bytes_[byte] = static_cast<char>(byte);
}

std::vector<int32_t> ByteTokenizer::encode_part(std::string_view text, bool) const {
  std::vector<int32_t> ids(text.size());
  for (size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<uint8_t>(text[i]);
  return ids;
}

std::string_view ByteTokenizer::bytes_of(int32_t id) const {
  if (id < 0 || id >= kEos) return {};
  return std::string_view(bytes_).substr(static_cast<size_t>(id), 1);
}

std::string ByteTokenizer::to_json() const {
  return nlohmann::ordered_json(
             {{"type", "byte"}, {"version", 1}, {"vocab_size", vocab_size()}, {"eos", kEos}})
      .dump();
}

uint32_t byte_level_code_point(uint8_t byte) {
  static const std::vector<uint32_t> table = [] {
    std::vector<uint32_t> points(256);
    uint32_t moved = 0;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      points[b] = printable ? b : 0x100 + moved++;
    }
    return points;
  }();
  return table[byte];
}

// A byte-level BPE without merges is this tokenizer.
std::string ByteTokenizer::to_hugging_face_json() const {
  using Json = nlohmann::ordered_json;
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string piece;
    append_utf8(piece, byte_level_code_point(static_cast<uint8_t>(byte)));
    vocab[piece] = byte;
  }
  vocab["<eos>"] = kEos;
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const Json eos = {{"id", kEos},      {"content", "<eos>"},  {"single_word", false}, {"lstrip", false},
                    {"rstrip", false}, {"normalized", false}, {"special", true}};
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", nullptr},
                      {"end_of_word_suffix", nullptr},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"ignore_merges", false},
                      {"vocab", vocab},
                      {"merges", Json::array()}};
  return Json({{"version", "1.0"},
               {"truncation", nullptr},
               {"padding", nullptr},
               {"added_tokens", Json::array({eos})},
               {"normalizer", nullptr},
               {"pre_tokenizer", byte_level},
               {"post_processor", nullptr},
               {"decoder", byte_level},
               {"model", model}})
      .dump(2);
}

std::string StreamDecoder::push(int32_t id) {
  pending_.append(tokenizer_.bytes_of(id));
  std::string rest;
  std::string text = to_utf8(pending_, &rest);
  pending_ = std::move(rest);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = to_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace switchyard
