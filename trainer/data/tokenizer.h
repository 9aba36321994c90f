// Text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/data/token_file.h"

namespace switchyard {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string name() const = 0;  // "byte", "bpe"
  virtual int64_t vocab_size() const = 0;
  // Any bytes are text, UTF-8 or not. Special tokens are never made from text.
  std::vector<int32_t> encode(std::string_view text) const { return encode_part(text, true); }
  // Of a text that comes in parts (text_files.h): what goes before a text goes before its first part alone.
  virtual std::vector<int32_t> encode_part(std::string_view text, bool first) const = 0;
  // The bytes token `id` stands for; none for a special token or an id beyond the vocabulary.
  virtual std::string_view bytes_of(int32_t id) const = 0;
  virtual std::optional<int32_t> eos() const = 0;  // ends a document
  virtual std::optional<int32_t> bos() const = 0;
  // Everything load_tokenizer_json() needs to make it again: goes into checkpoints.
  virtual std::string to_json() const = 0;
  // The same for Hugging Face's `tokenizers`.
  virtual std::string to_hugging_face_json() const = 0;

  virtual std::string decode(std::span<const int32_t> ids) const;
  int64_t byte_length(int32_t id) const { return static_cast<int64_t>(bytes_of(id).size()); }
  uint64_t fingerprint() const;  // of to_json()
};

// Ids 0 .. 255 are the bytes, 256 is <eos>: the end of a document.
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEos = 256;

  ByteTokenizer();
  std::string name() const override { return "byte"; }
  int64_t vocab_size() const override { return 257; }
  std::vector<int32_t> encode_part(std::string_view text, bool first) const override;
  std::string_view bytes_of(int32_t id) const override;
  std::optional<int32_t> eos() const override { return kEos; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::string to_json() const override;
  std::string to_hugging_face_json() const override;

 private:
  std::string bytes_;  // 0 .. 255
};

// Do the same ids stand for the same bytes? Where the files of two tokenizers differ, this tells whether they
// mean the same.
bool same_vocabulary(const Tokenizer& a, const Tokenizer& b);

// What to_json() wrote, or a Hugging Face tokenizer.json; `origin` names the text in errors (Fault::kData).
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& text, const std::string& origin);
// "byte", or a file: tokenizer.json, what to_json() wrote, or a SentencePiece .model.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name_or_path);
// The tokenizer a token file was made with, found beside it; null where its sidecar is missing. Fault::kData
// where the tokenizer found is another one.
std::unique_ptr<Tokenizer> tokenizer_of(const TokenFile& file);

// Turns tokens into UTF-8 as they come. Bytes of an unfinished character are held back; what is no UTF-8
// becomes U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

// GPT-2's printable alphabet for the 256 bytes: the code point that stands for a byte
// in a byte-level vocabulary.
uint32_t byte_level_code_point(uint8_t byte);

}  // namespace switchyard
