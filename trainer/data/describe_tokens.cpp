// describe_tokens() of prepare.h.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "trainer/data/prepare.h"

namespace switchyard {
namespace {

nlohmann::ordered_json description(const TokenFile& file) {
  nlohmann::ordered_json json = {{"kind", "tokens"},
                                 {"prefix", file.prefix()},
                                 {"format", name_of(file.format())},
                                 {"type", name_of(file.type())},
                                 {"tokens", file.tokens()},
                                 {"documents", file.documents()},
                                 {"max_token", file.max_token()}};
  if (file.sidecar()) {
    const Sidecar& sidecar = *file.sidecar();
    json["vocab_size"] = sidecar.vocab_size;
    json["tokenizer"] = sidecar.tokenizer;
    json["text_bytes"] = sidecar.text_bytes;
    json["sources"] = sidecar.sources;
  }
  return json;
}

std::string line(std::string label, const std::string& value) {
  label.resize(std::max<size_t>(label.size(), 12), ' ');
  return label + value + "\n";
}

std::string first_tokens(const TokenFile& file) {
  std::vector<int32_t> tokens(static_cast<size_t>(std::min<int64_t>(16, file.tokens())));
  file.read(0, static_cast<int64_t>(tokens.size()), tokens.data());
  std::string text;
  for (const int32_t token : tokens) text += std::to_string(token) + " ";
  return text + (file.tokens() > 16 ? "..." : "");
}

}  // namespace

std::string describe_tokens(const std::string& prefix, bool json) {
  const TokenFile file = TokenFile::open(prefix);
  if (file.sidecar()) file.check_tokens(file.sidecar()->vocab_size);
  const auto values = description(file);
  if (json) return values.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  std::string text;
  for (const auto& [key, value] : values.items()) {
    const std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
    text += line(key, shown);
  }
  if (file.tokens() > 0) text += line("starts with", first_tokens(file));
  return text;
}

}  // namespace switchyard
