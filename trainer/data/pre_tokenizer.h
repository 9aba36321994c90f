// Cuts text into words before byte pairs are merged, with the regular expressions of a tokenizer (PCRE2).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// GPT-2's words; the default of Hugging Face's ByteLevel.
extern const char* const kGpt2Pattern;

class PreTokenizer {
 public:
  // Each pattern cuts the pieces that the one before left. Fault::kData where a pattern does not compile.
  explicit PreTokenizer(const std::vector<std::string>& patterns);
  ~PreTokenizer();
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;

  // The matches and what lies between them: together the whole text. Bytes that are no UTF-8 match nothing.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Pattern;
  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace switchyard
