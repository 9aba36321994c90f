#include "trainer/data/token_type.h"

namespace switchyard {

int64_t size_of(TokenType type) {
  return visit(type, [](auto token) { return static_cast<int64_t>(sizeof(token)); });
}

const char* name_of(TokenType type) {
  switch (type) {
    case TokenType::kU8: return "u8";
    case TokenType::kI8: return "i8";
    case TokenType::kI16: return "i16";
    case TokenType::kI32: return "i32";
    case TokenType::kI64: return "i64";
    case TokenType::kU16: return "u16";
    case TokenType::kU32: return "u32";
  }
  return "unknown";
}

bool is_megatron_code(uint8_t code) { return (code >= 1 && code <= 5) || code == 8; }

TokenType token_type_for(int64_t vocab_size) {
  return vocab_size < 65500 ? TokenType::kU16 : TokenType::kI32;
}

const char* name_of(TokenFormat format) {
  switch (format) {
    case TokenFormat::kMegatron: return "megatron";
    case TokenFormat::kLlmC: return "llm.c";
    case TokenFormat::kNanoGpt: return "nanogpt";
  }
  return "unknown";
}

}  // namespace switchyard
