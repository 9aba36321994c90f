// parse_bpe_json() of bpe.h.
#include <charconv>
#include <nlohmann/json.hpp>

#include "kernels/check.h"
#include "trainer/data/bpe.h"
#include "trainer/data/sentencepiece.h"
#include "trainer/data/utf8.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostHoles = 1 << 16;  // ids without a token

// All of `from` in `text` becomes `to`.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from)) {
    out.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return out.append(text);
}

// The bytes that a byte-level piece is written for; characters outside the alphabet stand for themselves.
std::string from_byte_level(std::string_view piece) {
  static const std::unordered_map<uint32_t, char> bytes = [] {
    std::unordered_map<uint32_t, char> map;
    for (int b = 0; b < 256; ++b) map[byte_level_code_point(static_cast<uint8_t>(b))] = static_cast<char>(b);
    return map;
  }();
  std::string text;
  while (!piece.empty()) {
    const Utf8Char next = read_utf8(piece);
    const auto length = static_cast<size_t>(std::max(1, next.bytes));
    const auto byte = bytes.find(next.code_point);
    byte != bytes.end() ? text.push_back(byte->second) : void(text.append(piece.substr(0, length)));
    piece.remove_prefix(length);
  }
  return text;
}

// 0 .. 255 for "<0xNN>", else -1.
int byte_of_piece(const std::string& piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  int value = -1;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  return error == std::errc() && end == piece.data() + 5 ? value : -1;
}

class Parser {
 public:
  explicit Parser(const Json& json) : json_(json), spec_(json.at("model")) {}

  BpeModel parse() {
    if (spec_.value("type", "BPE") != "BPE")
      fail(Fault::kData, "model type ", spec_.at("type"), " is not BPE");
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const auto value = spec_.find(affix);
      if (value != spec_.end() && !value->is_null() && *value != "")
        fail(Fault::kData, affix, " is not supported");
    }
    model_.byte_fallback = spec_.value("byte_fallback", false);
    read_pre_tokenizer(at_or_null(json_, "pre_tokenizer"));
    read_normalizer(at_or_null(json_, "normalizer"));
    if (byte_level_ == model_.byte_fallback)
      fail(Fault::kData, "neither ByteLevel nor byte_fallback, or both");
    most_ids_ = spec_.at("vocab").size() + json_.value("added_tokens", Json::array()).size() + kMostHoles;
    read_vocabulary();
    read_added_tokens();
    read_merges();
    return std::move(model_);
  }

 private:
  static Json at_or_null(const Json& object, const char* key) {
    return object.contains(key) ? object.at(key) : Json();
  }

  void read_pre_tokenizer(const Json& part) {
    if (part.is_null()) return;
    const std::string type = part.at("type");
    if (type == "Sequence") {
      for (const Json& inner : part.at("pretokenizers")) read_pre_tokenizer(inner);
    } else if (type == "ByteLevel") {
      byte_level_ = true;
      model_.prefix_space = part.value("add_prefix_space", false);
      if (part.value("use_regex", true)) model_.patterns.push_back(kGpt2Pattern);
    } else if (type == "Split" && part.at("behavior") == "Isolated" && part.at("pattern").contains("Regex")) {
      model_.patterns.push_back(part.at("pattern").at("Regex"));
    } else if (type == "Digits") {
      model_.patterns.push_back(part.value("individual_digits", false) ? "\\p{N}" : "\\p{N}+");
    } else if (type == "Metaspace" && !part.value("split", true)) {
      model_.prefix_space = part.value("prepend_scheme", "always") != "never";
    } else {
      fail(Fault::kData, "pre-tokenizer ", type, " is not supported");
    }
  }

  void read_normalizer(const Json& part) {
    if (part.is_null()) return;
    const std::string type = part.at("type");
    if (type == "Sequence") {
      for (const Json& inner : part.at("normalizers")) read_normalizer(inner);
    } else if (type == "NFC") {
      model_.nfc = true;
    } else if (type == "Prepend" && part.at("prepend") == kSpaceMarker) {
      model_.prefix_space = true;
    } else if (!(type == "Replace" && part.at("pattern").value("String", "") == " " &&
                 part.at("content") == kSpaceMarker)) {
      fail(Fault::kData, "normalizer ", type, " is not supported");
    }
  }

  int32_t checked_id(const Json& id) const {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= most_ids_) {
      fail(Fault::kData, "token id ", id.dump(), " is out of range");
    }
    return id.get<int32_t>();
  }

  std::string& bytes_at(int32_t id) {
    if (static_cast<size_t>(id) >= model_.bytes.size()) model_.bytes.resize(static_cast<size_t>(id) + 1);
    return model_.bytes[static_cast<size_t>(id)];
  }

  void read_vocabulary() {
    model_.byte_ids.assign(256, -1);
    for (const auto& [piece, value] : spec_.at("vocab").items()) {
      const int32_t id = checked_id(value);
      ids_[piece] = id;
      const int byte = model_.byte_fallback ? byte_of_piece(piece) : -1;
      std::string bytes = !model_.byte_fallback ? from_byte_level(piece)
                          : byte >= 0           ? std::string(1, static_cast<char>(byte))
                                                : replace_all(piece, kSpaceMarker, " ");
      if (byte >= 0) {
        model_.byte_ids[byte] = id;
      } else if (!model_.byte_fallback && bytes.size() == 1) {
        model_.byte_ids[static_cast<uint8_t>(bytes[0])] = id;
      } else if (model_.byte_fallback && static_cast<size_t>(read_utf8(bytes).bytes) == bytes.size()) {
        model_.characters[bytes] = id;
      }
      if (model_.byte_fallback && bytes == " ") model_.characters[bytes] = id;
      if (spec_.value("ignore_merges", false)) model_.whole_words[bytes] = id;
      bytes_at(id) = std::move(bytes);
    }
    const Json unknown = at_or_null(spec_, "unk_token");
    if (unknown.is_string() && ids_.contains(unknown.get<std::string>())) model_.unknown = ids_[unknown];
  }

  // Special tokens are no text. Which of them ends a document is not in the file: the usual names tell.
  void read_added_tokens() {
    std::unordered_map<std::string, int32_t> special;
    for (const Json& token : json_.value("added_tokens", Json::array())) {
      const std::string content = token.at("content");
      const int32_t id = checked_id(token.at("id"));
      const bool is_special = token.value("special", false);
      bytes_at(id) = is_special ? "" : content;
      if (is_special) {
        special[content] = id;
        model_.characters.erase(content);
        model_.whole_words.erase(content);
      }
    }
    const auto choose = [&](std::initializer_list<const char*> names) -> std::optional<int32_t> {
      for (const char* name : names) {
        if (special.contains(name)) return special[name];
      }
      return std::nullopt;
    };
    model_.eos =
        choose({"<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|end▁of▁sentence|>", "<|im_end|>"});
    model_.bos = choose({"<bos>", "<s>", "<|begin_of_text|>", "<|begin▁of▁sentence|>"});
  }

  int32_t id_of(const std::string& piece) const {
    const auto found = ids_.find(piece);
    if (found == ids_.end())
      fail(Fault::kData, "a merge names '", piece, "', which is not in the vocabulary");
    return found->second;
  }

  // A merge is ["a", "b"], or "a b" in older files.
  void read_merges() {
    for (const Json& merge : spec_.at("merges")) {
      std::string left, right;
      if (merge.is_string()) {
        const std::string both = merge;
        const size_t space = both.find(' ');
        if (space == std::string::npos) fail(Fault::kData, "merge '", both, "' has no space");
        left = both.substr(0, space);
        right = both.substr(space + 1);
      } else {
        left = merge.at(0);
        right = merge.at(1);
      }
      model_.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
    }
  }

  const Json& json_;
  const Json& spec_;
  BpeModel model_;
  bool byte_level_ = false;
  size_t most_ids_ = 0;  // so that an id does not ask for more memory than the file is long
  std::unordered_map<std::string, int32_t> ids_;
};

}  // namespace

BpeModel parse_bpe_json(const std::string& json, const std::string& origin) {
  try {
    const Json parsed = Json::parse(json);
    return Parser(parsed).parse();
  } catch (const std::exception& error) {
    fail(Fault::kData, origin, ": ", error.what());
  }
}

}  // namespace switchyard
