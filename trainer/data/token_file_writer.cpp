// TokenFileWriter: the writing half of token_file.h.
#include <algorithm>
#include <climits>
#include <filesystem>

#include "kernels/check.h"
#include "trainer/data/token_file.h"

namespace switchyard {
namespace {

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <class T>
std::string narrow(const int32_t* tokens, int64_t count) {
  std::string bytes(static_cast<size_t>(count) * sizeof(T), '\0');
  T* out = reinterpret_cast<T*>(bytes.data());
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<T>(tokens[i]);
    CHECK(static_cast<int64_t>(out[i]) == tokens[i], "token ", tokens[i], " does not fit its type");
  }
  return bytes;
}

std::string encode_tokens(TokenType type, const int32_t* tokens, int64_t count) {
  switch (type) {
    case TokenType::kU8: return narrow<uint8_t>(tokens, count);
    case TokenType::kU16: return narrow<uint16_t>(tokens, count);
    case TokenType::kI32: return narrow<int32_t>(tokens, count);
    default: check_failed(__FILE__, __LINE__, "a type that is written");
  }
}

}  // namespace

TokenFileWriter::TokenFileWriter(const std::string& prefix, TokenType type)
    : prefix_(prefix), type_(type), bin_(prefix + ".bin") {}

// A sequence's length is 32 bits in the index: a longer document becomes several sequences.
void TokenFileWriter::add_document(const int32_t* tokens, int64_t count) {
  for (int64_t begin = 0; begin < count; begin += INT32_MAX) {
    lengths_.push_back(static_cast<int32_t>(std::min<int64_t>(INT32_MAX, count - begin)));
  }
  bounds_.push_back(static_cast<int64_t>(lengths_.size()));
  const std::string bytes = encode_tokens(type_, tokens, count);
  bin_hash_.update(bytes.data(), static_cast<int64_t>(bytes.size()));
  bin_.write(bytes);
  tokens_ += count;
}

std::string TokenFileWriter::index() const {
  std::string bytes("MMIDIDX\0\0", 9);
  bytes.reserve(34 + lengths_.size() * 12 + bounds_.size() * 8);
  append(bytes, uint64_t{1});
  append(bytes, static_cast<uint8_t>(type_));
  append(bytes, static_cast<uint64_t>(lengths_.size()));
  append(bytes, static_cast<uint64_t>(bounds_.size()));
  for (const int32_t length : lengths_) append(bytes, length);
  int64_t offset = 0;
  for (const int32_t length : lengths_) {
    append(bytes, offset);
    offset += length * size_of(type_);
  }
  for (const int64_t bound : bounds_) append(bytes, bound);
  return bytes;
}

// The description gets its name last: a crash in between leaves files that open() finds not to belong
// together.
void TokenFileWriter::finish(Sidecar sidecar) {
  const std::string index_bytes = index();
  sidecar.tokens = tokens_;
  sidecar.documents = documents();
  sidecar.bin_xxh64 = bin_hash_.digest();
  sidecar.idx_xxh64 = xxh64(index_bytes);
  AtomicFile idx(prefix_ + ".idx"), json(prefix_ + ".json");
  idx.write(index_bytes);
  json.write(to_json(sidecar));
  bin_.sync();
  idx.sync();
  json.sync();
  bin_.commit();
  idx.commit();
  json.commit();
}

}  // namespace switchyard
