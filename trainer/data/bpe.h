// Byte-pair encoding, of both kinds that Hugging Face's tokenizer.json knows:
//   byte-level     a word's bytes are its first tokens (GPT-2, Llama 3, Qwen)
//   byte fallback  a text's characters are its first tokens, and the bytes <0xNN> of those that are none
//   (SentencePiece)
// Then, as long as two neighbours form a known pair, the pair learned first is merged, leftmost first.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "trainer/data/pre_tokenizer.h"
#include "trainer/data/tokenizer.h"

namespace switchyard {

struct BpeModel {
  std::vector<std::string> bytes;  // of each id, as decoded; empty for special tokens and holes
  std::vector<int32_t> byte_ids;   // [256], -1: the byte has no token
  std::unordered_map<std::string, int32_t> characters;   // byte fallback: first tokens
  std::unordered_map<std::string, int32_t> whole_words;  // tokens taken without merging (ignore_merges)
  std::vector<std::array<int32_t, 3>> merges;            // left, right, merged; in the order of learning
  std::vector<std::string> patterns;                     // of the pre-tokenizer
  bool byte_fallback = false;
  bool nfc = false;           // the text is composed first
  bool prefix_space = false;  // a space goes before the text (and is taken off by decode, with byte fallback)
  int32_t unknown = -1;
  std::optional<int32_t> eos, bos;
};

class BpeTokenizer final : public Tokenizer {
 public:
  // `json` is the tokenizer.json the model came from.
  BpeTokenizer(BpeModel model, std::string json);

  std::string name() const override { return "bpe"; }
  int64_t vocab_size() const override { return static_cast<int64_t>(model_.bytes.size()); }
  std::vector<int32_t> encode_part(std::string_view text, bool first) const override;
  std::string_view bytes_of(int32_t id) const override;
  std::optional<int32_t> eos() const override { return model_.eos; }
  std::optional<int32_t> bos() const override { return model_.bos; }
  std::string to_json() const override { return json_; }
  std::string to_hugging_face_json() const override { return json_; }
  std::string decode(std::span<const int32_t> ids) const override;

 private:
  std::vector<int32_t> encode_word(std::string_view word) const;
  std::vector<int32_t> first_tokens(std::string_view word) const;
  void merge(std::vector<int32_t>& ids) const;

  struct Merge {
    int32_t rank, merged;
  };
  BpeModel model_;
  std::string json_;
  PreTokenizer pre_tokenizer_;
  std::unordered_map<uint64_t, Merge> merges_;  // by left << 32 | right
};

// The model of a tokenizer.json; Fault::kData naming `origin` where it is none or
// asks for what is not known here.
BpeModel parse_bpe_json(const std::string& json, const std::string& origin);

}  // namespace switchyard
