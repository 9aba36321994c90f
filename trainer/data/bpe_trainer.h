// Learns a byte-level BPE with GPT-2's words: a vocabulary that covers every text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "trainer/data/pre_tokenizer.h"

namespace switchyard {

class BpeTrainer {
 public:
  BpeTrainer();
  // Ids: 0 .. 255 the bytes, 256 <eos>, then the merges in the order learned. vocab_size > 257.
  static constexpr int64_t kFirstMerge = 257;

  using Counts = std::unordered_map<std::string, int64_t>;
  Counts count_words(std::string_view text) const;  // of one text; threads may count at a time
  void add(const Counts& counts);

  // The tokenizer.json. The pair that occurs most is merged first, of equals the one of the smaller ids;
  // fewer merges than asked where no pair occurs twice.
  std::string train(int64_t vocab_size) const;

 private:
  PreTokenizer pre_tokenizer_;
  Counts counts_;
};

}  // namespace switchyard
