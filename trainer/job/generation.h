// Text from a model, token by token.
#pragma once

#include <functional>

#include "trainer/data/tokenizer.h"
#include "trainer/model/transformer.h"

namespace switchyard {

struct GenerationOptions {
  int64_t max_tokens = 64;
  double temperature = 1;  // 0: the likeliest token
  int64_t top_k = 0;       // 0: all tokens
  uint64_t seed = 1;
};

// Whether the model knows every token. `where` starts the message.
void check_vocabulary(const std::vector<int32_t>& ids, int64_t vocab_size, const std::string& where,
                      Fault fault);

// Continues `ids` (not empty; Error{kData} where one is not in the vocabulary) until max_tokens, `stop`, or
// `interrupted` says so on any rank; calls `emit` for each new token. Collective over `world`: rank 0 draws.
void generate(const Transformer& model, std::vector<int32_t> ids, std::optional<int32_t> stop,
              const GenerationOptions& options, const Group& world, const std::function<void(int32_t)>& emit,
              const std::function<bool()>& interrupted = nullptr);

}  // namespace switchyard
