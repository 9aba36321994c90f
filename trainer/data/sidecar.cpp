#include "trainer/data/sidecar.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "trainer/files/files.h"

namespace switchyard {
namespace {

constexpr const char* kFormat = "switchyard tokens";

uint64_t parse_hex(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size())
    fail(Fault::kData, "bad checksum '", text, "'");
  return value;
}

int64_t count_of(const nlohmann::json& json, const char* key) {
  const auto& value = json.at(key);
  if (!value.is_number_integer() || value.get<int64_t>() < 0) fail(Fault::kData, key, " is no count");
  return value.get<int64_t>();
}

Sidecar from_json(const nlohmann::json& json) {
  Sidecar sidecar;
  sidecar.tokenizer = json.at("tokenizer").get<std::string>();
  sidecar.tokenizer_fingerprint = parse_hex(json.at("tokenizer_fingerprint").get<std::string>());
  sidecar.vocab_size = count_of(json, "vocab_size");
  sidecar.documents = count_of(json, "documents");
  sidecar.tokens = count_of(json, "tokens");
  sidecar.text_bytes = count_of(json, "text_bytes");
  sidecar.bin_xxh3 = parse_hex(json.at("bin_xxh3").get<std::string>());
  sidecar.idx_xxh3 = parse_hex(json.at("idx_xxh3").get<std::string>());
  sidecar.sources = json.at("sources").get<std::vector<std::string>>();
  return sidecar;
}

}  // namespace

std::string to_json(const Sidecar& sidecar) {
  nlohmann::ordered_json json = {{"format", kFormat},
                                 {"version", 1},
                                 {"tokenizer", sidecar.tokenizer},
                                 {"tokenizer_fingerprint", hex_of(sidecar.tokenizer_fingerprint)},
                                 {"vocab_size", sidecar.vocab_size},
                                 {"documents", sidecar.documents},
                                 {"tokens", sidecar.tokens},
                                 {"text_bytes", sidecar.text_bytes},
                                 {"bin_xxh3", hex_of(sidecar.bin_xxh3)},
                                 {"idx_xxh3", hex_of(sidecar.idx_xxh3)},
                                 {"sources", sidecar.sources}};
  // A file name may be any bytes; JSON is UTF-8.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::optional<Sidecar> parse_sidecar(const std::string& path, const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    if (!json.is_object() || json.value("format", nlohmann::json()) != kFormat) return std::nullopt;
    return from_json(json);
  } catch (const std::exception& error) {
    fail(Fault::kData, path, ": is no description of a token file: ", error.what());
  }
}

}  // namespace switchyard
