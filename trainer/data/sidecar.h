// PREFIX.json: what Megatron's two files do not say about a token file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

struct Sidecar {
  std::string tokenizer;  // "byte", or the name of the file beside this one that holds it
  uint64_t tokenizer_fingerprint = 0;
  int64_t vocab_size = 0;
  int64_t documents = 0;
  int64_t tokens = 0;
  int64_t text_bytes = 0;  // of the text; ends of documents have none
  uint64_t bin_xxh3 = 0, idx_xxh3 = 0;
  std::vector<std::string> sources = {};  // the inputs as they were named
};

std::string to_json(const Sidecar& sidecar);
// None where the text is the JSON of something else, which has nothing to do with the tokens. Fault::kData
// naming `path` where it is ours and not whole.
std::optional<Sidecar> parse_sidecar(const std::string& path, const std::string& text);

}  // namespace switchyard
