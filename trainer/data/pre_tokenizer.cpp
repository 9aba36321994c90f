#define PCRE2_CODE_UNIT_WIDTH 8
#include "trainer/data/pre_tokenizer.h"

#include <pcre2.h>

#include "kernels/check.h"

namespace switchyard {

const char* const kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct PreTokenizer::Pattern {
  explicit Pattern(const std::string& text) {
    int error = 0;
    size_t offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &error, &offset, nullptr);
    if (code == nullptr)
      fail(Fault::kData, "tokenizer: the pattern '", text, "' does not compile at ", offset);
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // only faster: without it matching works as well
  }
  ~Pattern() { pcre2_code_free(code); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  void split(std::string_view text, std::vector<std::string_view>& pieces) const {
    pcre2_match_data* match = pcre2_match_data_create_from_pattern(code, nullptr);
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> owner(match,
                                                                                    pcre2_match_data_free);
    const size_t* found = pcre2_get_ovector_pointer(match);
    size_t done = 0;  // up to here the pieces are out
    for (size_t at = 0; at < text.size();) {
      const int count =
          pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, 0, match, nullptr);
      if (count == PCRE2_ERROR_NOMATCH) break;
      if (count < 0) fail(Fault::kData, "tokenizer: a pattern fails with PCRE2 error ", count);
      at = found[1];
      if (found[1] <= found[0]) {  // an empty match cuts nothing
        ++at;
        continue;
      }
      if (found[0] > done) pieces.push_back(text.substr(done, found[0] - done));
      pieces.push_back(text.substr(found[0], found[1] - found[0]));
      done = found[1];
    }
    if (done < text.size()) pieces.push_back(text.substr(done));
  }

  pcre2_code* code;
};

PreTokenizer::PreTokenizer(const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) patterns_.push_back(std::make_unique<Pattern>(pattern));
}

PreTokenizer::~PreTokenizer() = default;

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces = {text};
  for (const auto& pattern : patterns_) {
    std::vector<std::string_view> finer;
    for (const std::string_view piece : pieces) pattern->split(piece, finer);
    pieces = std::move(finer);
  }
  return pieces;
}

}  // namespace switchyard
