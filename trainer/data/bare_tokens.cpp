#include "trainer/data/bare_tokens.h"

#include <cstring>

namespace switchyard {
namespace {

constexpr int64_t kHeaderBytes = 256 * 4;
constexpr int32_t kGpt2 = 20240520, kLlama3 = 20240801;

struct OtherFile {
  int32_t magic;
  const char* what;
};
constexpr OtherFile kOthers[] = {{20240522, "questions of an evaluation"},
                                 {20240326, "a model"},
                                 {20240327, "a state"},
                                 {20240328, "a tokenizer"},
                                 {20240527, "a state"}};

int32_t load(std::string_view bytes, int64_t at) {
  int32_t value = 0;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

BareTokens parse_llm_c(const std::string& path, std::string_view bytes, TokenType type, int32_t version) {
  if (std::ssize(bytes) < kHeaderBytes) {
    fail(Fault::kData, path, ": ", bytes.size(), " bytes are less than llm.c's header of ", kHeaderBytes);
  }
  if (load(bytes, 4) != version) {
    fail(Fault::kData, path, ": version ", load(bytes, 4), " at byte 4, ", version, " expected");
  }
  const int64_t tokens = load(bytes, 8), expected = kHeaderBytes + tokens * size_of(type);
  if (tokens < 0) fail(Fault::kData, path, ": ", tokens, " tokens at byte 8");
  if (std::ssize(bytes) != expected) {
    fail(Fault::kData, path, ": ", bytes.size(), " bytes, but ", tokens, " ", name_of(type),
         " tokens (byte 8) make ", expected);
  }
  return {TokenFormat::kLlmC, type, bytes.substr(kHeaderBytes)};
}

}  // namespace

BareTokens parse_bare_tokens(const std::string& path, std::string_view bytes) {
  const int32_t magic = bytes.size() >= 4 ? load(bytes, 0) : 0;
  if (magic == kGpt2) return parse_llm_c(path, bytes, TokenType::kU16, 1);
  if (magic == kLlama3) return parse_llm_c(path, bytes, TokenType::kU32, 7);
  for (const OtherFile& other : kOthers) {
    if (magic == other.magic)
      fail(Fault::kData, path, ": holds ", other.what, " of llm.c, no tokens (byte 0)");
  }
  if (bytes.size() % 2 != 0) {
    fail(Fault::kData, path, ": ", bytes.size(), " bytes are no whole number of u16 tokens");
  }
  return {.bytes = bytes};
}

}  // namespace switchyard
