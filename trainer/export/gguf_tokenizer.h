#pragma once

#include "trainer/export/gguf.h"

namespace switchyard {

// The vocabulary's keys. `tokenizer` is what Tokenizer::to_json() wrote, or empty: then, and where llama.cpp
// knows no such tokenizer, the tokens are the dummies "<0>", "<1>", ..., which is the least that it loads.
void write_tokenizer(GgufFile& file, const std::string& tokenizer, const std::string& origin,
                     int64_t vocab_size);

}  // namespace switchyard
