// Token files without an index beside them: llm.c's and nanoGPT's .bin.
//
//   llm.c:    256 x i32 {20240520, 1, tokens, 0 ...} then u16, or {20240801, 7, tokens, 0 ...} then u32
//   nanoGPT:  nothing but u16 tokens
//
// The first four bytes tell them apart: read as u16 tokens, llm.c's magic numbers would begin with an id
// above 55000, which no GPT-2 file has.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "trainer/data/token_type.h"

namespace switchyard {

struct BareTokens {
  TokenFormat format = TokenFormat::kNanoGpt;
  TokenType type = TokenType::kU16;
  std::string_view bytes;  // the tokens alone
};

// Fault::kData naming `path` and the place where the file is neither.
BareTokens parse_bare_tokens(const std::string& path, std::string_view bytes);

}  // namespace switchyard
