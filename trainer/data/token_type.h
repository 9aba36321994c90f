// What a token file's numbers are, and whose format it is.
#pragma once

#include <cstdint>

#include "kernels/check.h"

namespace switchyard {

// Megatron's codes, and llm.c's u32, for which Megatron has none.
enum class TokenType : uint8_t { kU8 = 1, kI8 = 2, kI16 = 3, kI32 = 4, kI64 = 5, kU16 = 8, kU32 = 255 };

int64_t size_of(TokenType type);
const char* name_of(TokenType type);
bool is_megatron_code(uint8_t code);
TokenType token_type_for(int64_t vocab_size);  // u16 below 65500 tokens, else i32, as Megatron chooses

enum class TokenFormat : uint8_t { kMegatron, kLlmC, kNanoGpt };

const char* name_of(TokenFormat format);

// f(T{}) with the C++ type of the tokens.
template <class F>
auto visit(TokenType type, F&& f) {
  switch (type) {
    case TokenType::kU8: return f(uint8_t{});
    case TokenType::kI8: return f(int8_t{});
    case TokenType::kI16: return f(int16_t{});
    case TokenType::kI32: return f(int32_t{});
    case TokenType::kI64: return f(int64_t{});
    case TokenType::kU16: return f(uint16_t{});
    case TokenType::kU32: return f(uint32_t{});
  }
  check_failed(__FILE__, __LINE__, "a known token type");
}

}  // namespace switchyard
