#include "trainer/export/gguf_tokenizer.h"

#include <map>
#include <optional>

#include "trainer/data/pre_tokenizer.h"
#include "trainer/data/tokenizer.h"
#include "trainer/export/output.h"
#include "trainer/files/strict_json.h"

namespace switchyard {
namespace {

using nlohmann::json;

enum TokenKind : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUnused = 5, kByte = 6 };

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;

  void place(const std::string& token, int64_t id, TokenKind kind) {
    if (id < 0 || id >= std::ssize(tokens)) return;
    tokens[static_cast<size_t>(id)] = token;
    kinds[static_cast<size_t>(id)] = kind;
  }
};

Vocabulary dummies(int64_t size, TokenKind kind) {
  Vocabulary vocabulary;
  for (int64_t id = 0; id < size; ++id) {
    vocabulary.tokens.push_back(concat("<", id, ">"));
    vocabulary.kinds.push_back(kind);
  }
  return vocabulary;
}

struct Merge {
  std::string left, right;
};

std::vector<Merge> merges_of(const json& text) {
  std::vector<Merge> merges;
  for (const json& merge : text["model"]["merges"]) {
    if (merge.is_array()) {
      merges.push_back({merge[0].get<std::string>(), merge[1].get<std::string>()});
    } else {
      const std::string both = merge.get<std::string>();
      const size_t space = both.find(' ');
      merges.push_back({both.substr(0, space), both.substr(space + 1)});
    }
  }
  return merges;
}

void place_special(const json& text, Vocabulary& vocabulary) {
  for (const json& added : text.value("added_tokens", json::array()))
    vocabulary.place(added["content"].get<std::string>(), added["id"].get<int64_t>(),
                     added.value("special", false) ? kControl : kNormal);
}

// The regular expressions of tokenizer.json's pre-tokenizer, of which llama.cpp knows some by name.
void collect_patterns(const json& part, std::vector<std::string>& patterns) {
  if (!part.is_object()) return;
  const std::string type = part.value("type", "");
  for (const json& inner : part.value("pretokenizers", json::array())) collect_patterns(inner, patterns);
  if (type == "ByteLevel" && part.value("use_regex", true)) patterns.emplace_back(kGpt2Pattern);
  if (type == "Split") patterns.push_back(part["pattern"].value("Regex", ""));
  if (type == "Digits") patterns.emplace_back("digits");
}

// llama.cpp's name for how a text is cut into words; empty: it has none.
std::string pre_tokenizer_name(const json& text) {
  constexpr const char* kWords =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const auto with_number = [](const std::string& number) {
    const std::string words = kWords;
    const size_t at = words.find("NUMBER");
    return words.substr(0, at) + number + words.substr(at + 6);
  };
  std::vector<std::string> patterns;
  collect_patterns(text.value("pre_tokenizer", json()), patterns);
  if (patterns.size() != 1) return "";
  if (patterns[0] == kGpt2Pattern) return "gpt-2";
  if (patterns[0] == with_number(R"(\p{N})")) return "qwen2";
  if (patterns[0] == with_number(R"(\p{N}{1,3})")) return "llama-bpe";
  return "";
}

// A byte-level BPE tokenizer.json is llama.cpp's "gpt2". Returns a warning, or nothing.
std::string write_byte_level(GgufFile& file, const json& text, Vocabulary vocabulary) {
  for (const auto& [token, id] : text["model"]["vocab"].items())
    vocabulary.place(token, id.get<int64_t>(), kNormal);
  place_special(text, vocabulary);
  std::vector<std::string> merges;
  for (const Merge& merge : merges_of(text)) merges.push_back(merge.left + " " + merge.right);
  const std::string name = merges.empty() ? "gpt-2" : pre_tokenizer_name(text);
  file.set_text("tokenizer.ggml.model", "gpt2");
  file.set_text("tokenizer.ggml.pre", name.empty() ? "default" : name);
  file.set_texts("tokenizer.ggml.tokens", vocabulary.tokens);
  file.set_i32s("tokenizer.ggml.token_type", vocabulary.kinds);
  file.set_texts("tokenizer.ggml.merges", merges);
  file.set_bool("tokenizer.ggml.add_space_prefix", false);
  return name.empty()
             ? "llama.cpp has no name for this tokenizer's way to cut words, and may cut some texts otherwise"
             : "";
}

// SentencePiece's pieces with a byte fallback are llama.cpp's "llama". It merges the pair whose piece scores
// highest, so a piece's score is how early it was first merged.
void write_pieces(GgufFile& file, const json& text, Vocabulary vocabulary) {
  std::map<std::string, float> scores;
  float next = 0;
  for (const Merge& merge : merges_of(text)) scores.try_emplace(merge.left + merge.right, --next);
  std::vector<float> score(vocabulary.tokens.size());
  for (const auto& [token, id] : text["model"]["vocab"].items()) {
    const bool is_byte = token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
    vocabulary.place(token, id.get<int64_t>(), is_byte ? kByte : kNormal);
    const auto found = scores.find(token);
    if (found != scores.end() && id.get<size_t>() < score.size()) score[id.get<size_t>()] = found->second;
  }
  place_special(text, vocabulary);
  const json unknown = text["model"].value("unk_token", json());
  if (unknown.is_string() && text["model"]["vocab"].contains(unknown.get<std::string>())) {
    const auto id = text["model"]["vocab"][unknown.get<std::string>()].get<int64_t>();
    vocabulary.place(unknown.get<std::string>(), id, kUnknown);
    file.set_u32("tokenizer.ggml.unknown_token_id", id);
  }
  file.set_text("tokenizer.ggml.model", "llama");
  file.set_text("tokenizer.ggml.pre", "default");
  file.set_texts("tokenizer.ggml.tokens", vocabulary.tokens);
  file.set_f32s("tokenizer.ggml.scores", score);
  file.set_i32s("tokenizer.ggml.token_type", vocabulary.kinds);
  const std::string steps =
      text.value("normalizer", json()).dump() + text.value("pre_tokenizer", json()).dump();
  const bool prefix = steps.find("Prepend") != steps.npos ||
                      (steps.find("Metaspace") != steps.npos && steps.find("never") == steps.npos);
  file.set_bool("tokenizer.ggml.add_space_prefix", prefix);
}

void write_dummies(GgufFile& file, const Vocabulary& vocabulary) {
  file.set_text("tokenizer.ggml.model", "llama");
  file.set_text("tokenizer.ggml.pre", "default");
  file.set_texts("tokenizer.ggml.tokens", vocabulary.tokens);
  file.set_f32s("tokenizer.ggml.scores", std::vector<float>(vocabulary.tokens.size()));
  file.set_i32s("tokenizer.ggml.token_type", vocabulary.kinds);
  file.set_bool("tokenizer.ggml.add_space_prefix", false);
}

// config.json has one id, or a list of which the first ends a text.
std::optional<int64_t> id_in(const json& source, const char* key, int64_t vocab_size) {
  json id = source.value(key, json());
  if (id.is_array() && !id.empty()) id = id[0];
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size))
    return std::nullopt;
  return id.get<int64_t>();
}

}  // namespace

std::string write_tokenizer(GgufFile& file, const std::string& tokenizer, const std::string& origin,
                            json source, int64_t vocab_size) {
  std::string warning;
  if (tokenizer.empty()) {
    write_dummies(file, dummies(vocab_size, kNormal));
  } else {
    const auto loaded = load_tokenizer_json(tokenizer, origin);
    set_token_ids(source, *loaded);
    const json text = parse_json(loaded->to_hugging_face_json(), origin, Fault::kData);
    if (text["model"].value("byte_fallback", false))
      write_pieces(file, text, dummies(vocab_size, kUnused));
    else
      warning = write_byte_level(file, text, dummies(vocab_size, kUnused));
  }
  for (const std::string end : {"eos", "bos"}) {
    const auto id = id_in(source, (end + "_token_id").c_str(), vocab_size);
    if (id) file.set_u32("tokenizer.ggml." + end + "_token_id", *id);
  }
  file.set_bool("tokenizer.ggml.add_bos_token", false);
  file.set_bool("tokenizer.ggml.add_eos_token", false);
  return warning;
}

}  // namespace switchyard
