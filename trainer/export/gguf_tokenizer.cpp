#include "trainer/export/gguf_tokenizer.h"

#include "trainer/checkpoint/strict_json.h"
#include "trainer/data/tokenizer.h"

namespace switchyard {
namespace {

using nlohmann::json;

enum TokenKind : int32_t { kNormal = 1, kControl = 3, kUnused = 5 };

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;
  std::vector<std::string> merges;
};

Vocabulary dummies(int64_t size, TokenKind kind) {
  Vocabulary vocabulary;
  for (int64_t id = 0; id < size; ++id) {
    vocabulary.tokens.push_back(concat("<", id, ">"));
    vocabulary.kinds.push_back(kind);
  }
  return vocabulary;
}

// A byte-level BPE tokenizer.json, which is llama.cpp's "gpt2". False: it is of another kind.
bool read_byte_level(const json& text, Vocabulary& vocabulary) {
  if (!text.contains("model") || text["model"].value("type", "") != "BPE" || !text["decoder"].is_object() ||
      text["decoder"].value("type", "") != "ByteLevel")
    return false;
  const auto place = [&](const std::string& token, int64_t id, TokenKind kind) {
    if (id < 0 || id >= static_cast<int64_t>(vocabulary.tokens.size())) return;
    vocabulary.tokens[static_cast<size_t>(id)] = token;
    vocabulary.kinds[static_cast<size_t>(id)] = kind;
  };
  for (const auto& [token, id] : text["model"]["vocab"].items()) place(token, id.get<int64_t>(), kNormal);
  for (const json& added : text["added_tokens"])
    place(added["content"].get<std::string>(), added["id"].get<int64_t>(), kControl);
  for (const json& merge : text["model"]["merges"])
    vocabulary.merges.push_back(merge.is_array()
                                    ? merge[0].get<std::string>() + " " + merge[1].get<std::string>()
                                    : merge.get<std::string>());
  return true;
}

void write_ends(GgufFile& file, const Tokenizer& tokenizer) {
  if (const auto eos = tokenizer.eos()) file.set_u32("tokenizer.ggml.eos_token_id", *eos);
  if (const auto bos = tokenizer.bos()) file.set_u32("tokenizer.ggml.bos_token_id", *bos);
}

void write_dummies(GgufFile& file, int64_t vocab_size) {
  const Vocabulary vocabulary = dummies(vocab_size, kNormal);
  file.set_text("tokenizer.ggml.model", "llama");
  file.set_text("tokenizer.ggml.pre", "default");
  file.set_texts("tokenizer.ggml.tokens", vocabulary.tokens);
  file.set_f32s("tokenizer.ggml.scores", std::vector<float>(vocabulary.tokens.size()));
  file.set_i32s("tokenizer.ggml.token_type", vocabulary.kinds);
}

}  // namespace

void write_tokenizer(GgufFile& file, const std::string& tokenizer, const std::string& origin,
                     int64_t vocab_size) {
  Vocabulary vocabulary = dummies(vocab_size, kUnused);
  std::unique_ptr<Tokenizer> loaded;
  bool known = false;
  if (!tokenizer.empty()) {
    loaded = load_tokenizer_json(tokenizer, origin);
    known = read_byte_level(parse_json(loaded->to_hugging_face_json(), origin, Fault::kData), vocabulary);
  }
  if (known) {
    file.set_text("tokenizer.ggml.model", "gpt2");
    file.set_text("tokenizer.ggml.pre", "gpt-2");
    file.set_texts("tokenizer.ggml.tokens", vocabulary.tokens);
    file.set_i32s("tokenizer.ggml.token_type", vocabulary.kinds);
    file.set_texts("tokenizer.ggml.merges", vocabulary.merges);
  } else {
    write_dummies(file, vocab_size);
  }
  if (loaded != nullptr) write_ends(file, *loaded);
  file.set_bool("tokenizer.ggml.add_bos_token", false);
  file.set_bool("tokenizer.ggml.add_eos_token", false);
  file.set_bool("tokenizer.ggml.add_space_prefix", false);
}

}  // namespace switchyard
