// TokenFileWriter: the writing half of token_file.h.
#include <algorithm>
#include <climits>

#include "kernels/check.h"
#include "trainer/data/token_file.h"

namespace switchyard {
namespace {

template <class T>
void append_value(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <class T>
std::string narrow(std::span<const int32_t> tokens) {
  std::string bytes(tokens.size() * sizeof(T), '\0');
  T* out = reinterpret_cast<T*>(bytes.data());
  for (size_t i = 0; i < tokens.size(); ++i) {
    out[i] = static_cast<T>(tokens[i]);
    CHECK(static_cast<int64_t>(out[i]) == tokens[i], "token ", tokens[i], " does not fit its type");
  }
  return bytes;
}

std::string encode_tokens(TokenType type, std::span<const int32_t> tokens) {
  switch (type) {
    case TokenType::kU8: return narrow<uint8_t>(tokens);
    case TokenType::kU16: return narrow<uint16_t>(tokens);
    case TokenType::kI32: return narrow<int32_t>(tokens);
    default: check_failed(__FILE__, __LINE__, "a type that is written");
  }
}

}  // namespace

TokenFileWriter::TokenFileWriter(const std::string& prefix, TokenType type)
    : prefix_(prefix), type_(type), bin_(prefix + ".bin") {}

void TokenFileWriter::append(std::span<const int32_t> tokens) {
  const std::string bytes = encode_tokens(type_, tokens);
  bin_.write(bytes);
  document_tokens_ += static_cast<int64_t>(tokens.size());
}

// A sequence's length is 32 bits in the index: a longer document becomes several sequences.
void TokenFileWriter::end_document() {
  for (int64_t begin = 0; begin < document_tokens_; begin += INT32_MAX) {
    lengths_.push_back(static_cast<int32_t>(std::min<int64_t>(INT32_MAX, document_tokens_ - begin)));
  }
  bounds_.push_back(static_cast<int64_t>(lengths_.size()));
  tokens_ += document_tokens_;
  document_tokens_ = 0;
}

std::string TokenFileWriter::index() const {
  std::string bytes("MMIDIDX\0\0", 9);
  bytes.reserve(34 + lengths_.size() * 12 + bounds_.size() * 8);
  append_value(bytes, uint64_t{1});
  append_value(bytes, static_cast<uint8_t>(type_));
  append_value(bytes, static_cast<uint64_t>(lengths_.size()));
  append_value(bytes, static_cast<uint64_t>(bounds_.size()));
  for (const int32_t length : lengths_) append_value(bytes, length);
  int64_t offset = 0;
  for (const int32_t length : lengths_) {
    append_value(bytes, offset);
    offset += length * size_of(type_);
  }
  for (const int64_t bound : bounds_) append_value(bytes, bound);
  return bytes;
}

// Everything is on the disk before anything gets its name: where that fails, an older data set stays as it
// was. The tokenizer gets its name first, since tokens are never seen without it, and the description last: a
// crash in between leaves files that open() finds not to belong together.
Sidecar TokenFileWriter::finish(Sidecar sidecar, const std::string& tokenizer_json) {
  sidecar.tokens = tokens_;
  sidecar.documents = documents();
  std::optional<OutputFile> tokenizer;
  if (!tokenizer_json.empty()) {
    tokenizer.emplace(prefix_ + ".tokenizer.json").write(tokenizer_json);
    tokenizer->seal();
    sidecar.tokenizer = fs::path(prefix_ + ".tokenizer.json").filename().string();
  }
  sidecar.bin_xxh3 = bin_.seal().xxh3;
  OutputFile idx(prefix_ + ".idx"), description(prefix_ + ".json");
  idx.write(index());
  sidecar.idx_xxh3 = idx.seal().xxh3;
  description.write(to_json(sidecar));
  description.seal();
  if (tokenizer) tokenizer->commit();
  bin_.commit();
  idx.commit();
  description.commit();
  sync_directory(fs::path(prefix_).parent_path());
  return sidecar;
}

}  // namespace switchyard
