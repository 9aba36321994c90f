// Which tokenizer a name, a file or a token file stands for.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "trainer/data/bpe.h"
#include "trainer/data/sentencepiece.h"
#include "trainer/data/tokenizer.h"
#include "trainer/files/files.h"

namespace switchyard {

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& text, const std::string& origin) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) fail(Fault::kData, origin, ": is no tokenizer: not a JSON object");
  if (json.contains("type") && json["type"] == "byte") return std::make_unique<ByteTokenizer>();
  if (json.contains("model")) return std::make_unique<BpeTokenizer>(parse_bpe_json(text, origin), text);
  fail(Fault::kData, origin, ": is no tokenizer of a known kind");
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name_or_path) {
  if (name_or_path == "byte") return std::make_unique<ByteTokenizer>();
  const std::string bytes = read_file(name_or_path);
  const bool is_sentencepiece = fs::path(name_or_path).extension() == ".model";
  return load_tokenizer_json(is_sentencepiece ? sentencepiece_to_json(bytes, name_or_path) : bytes,
                             name_or_path);
}

std::unique_ptr<Tokenizer> tokenizer_of(const TokenFile& file) {
  if (!file.sidecar()) return nullptr;
  const std::string& name = file.sidecar()->tokenizer;
  if (name == "byte") return load_tokenizer(name);
  const std::filesystem::path plain = std::filesystem::path(name).filename();  // never leaves the folder
  const std::string path = (std::filesystem::path(file.prefix()).parent_path() / plain).string();
  auto tokenizer = load_tokenizer(path);
  if (tokenizer->fingerprint() != file.sidecar()->tokenizer_fingerprint) {
    fail(Fault::kData, path, ": is not the tokenizer that ", file.prefix(), ".json was made with");
  }
  return tokenizer;
}

}  // namespace switchyard
