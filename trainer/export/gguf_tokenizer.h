// A tokenizer as the keys of a GGUF file.
#pragma once

#include <nlohmann/json.hpp>

#include "trainer/export/gguf.h"

namespace switchyard {

// The vocabulary's keys. `tokenizer` is what Tokenizer::to_json() wrote, or empty: then the tokens are the
// dummies "<0>", "<1>", ..., which is the least that llama.cpp loads. `source`: the members of the config.json
// that the model came from. Returns what a user should know of it, or nothing.
std::string write_tokenizer(GgufFile& file, const std::string& tokenizer, const std::string& origin,
                            nlohmann::json source, int64_t vocab_size);

}  // namespace switchyard
