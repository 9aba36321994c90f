#include "trainer/data/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kernels/check.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

// The fields of one protobuf message in order.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    field_ = tag >> 3;
    const uint64_t wire = tag & 7;
    bytes_ = {};
    value_ = 0;
    if (wire == 0) {
      value_ = varint();
    } else if (wire == 1 || wire == 5) {
      bytes_ = take(wire == 1 ? 8 : 4);
    } else if (wire == 2) {
      bytes_ = take(varint());
    } else {
      fail(Fault::kData, "wire type ", wire, " is unknown");
    }
    return true;
  }
  uint64_t field() const { return field_; }
  uint64_t value() const { return value_; }          // of a number
  std::string_view bytes() const { return bytes_; }  // of a string or message
  float number() const {
    float value = 0;
    if (bytes_.size() != sizeof value) fail(Fault::kData, "a score is no float");
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail(Fault::kData, "a number has more than 64 bits");
  }
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) fail(Fault::kData, "unexpected end");
    const std::string_view part = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return part;
  }

  std::string_view rest_, bytes_;
  uint64_t field_ = 0, value_ = 0;
};

enum PieceType : uint64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Piece {
  std::string text;
  float score = 0;
  uint64_t type = kNormal;
};

struct Model {
  std::vector<Piece> pieces;
  uint64_t model_type = 1;  // TrainerSpec.model_type: 1 unigram, 2 BPE
  bool byte_fallback = false, dummy_prefix = true, remove_spaces = true, maps_characters = false;
};

Piece parse_piece(std::string_view bytes) {
  Piece piece;
  for (Message message(bytes); message.next();) {
    if (message.field() == 1) piece.text = message.bytes();
    if (message.field() == 2) piece.score = message.number();
    if (!std::isfinite(piece.score)) fail(Fault::kData, "a score is not finite");
    if (message.field() == 3) piece.type = message.value();
  }
  return piece;
}

Model parse(std::string_view bytes) {
  Model model;
  for (Message message(bytes); message.next();) {
    if (message.field() == 1) model.pieces.push_back(parse_piece(message.bytes()));
    for (Message spec(message.field() == 2 ? message.bytes() : ""); spec.next();) {  // TrainerSpec
      if (spec.field() == 3) model.model_type = spec.value();
      if (spec.field() == 35) model.byte_fallback = spec.value() != 0;
    }
    for (Message spec(message.field() == 3 ? message.bytes() : ""); spec.next();) {  // NormalizerSpec
      if (spec.field() == 2) model.maps_characters = !spec.bytes().empty();
      if (spec.field() == 3) model.dummy_prefix = spec.value() != 0;
      if (spec.field() == 4) model.remove_spaces = spec.value() != 0;
    }
  }
  if (model.pieces.empty()) fail(Fault::kData, "has no pieces");
  if (model.model_type != 2) fail(Fault::kData, "is no BPE model");
  if (!model.byte_fallback) fail(Fault::kData, "has no byte fallback");
  if (model.maps_characters || model.remove_spaces)
    fail(Fault::kData, "changes the text before it encodes it");
  return model;
}

// The model merges the pair whose piece scores highest, and has no list of merges: every split of every piece
// into two pieces is one, in the order of scores.
Json merges_of(const Model& model, const std::unordered_map<std::string_view, size_t>& ids) {
  std::vector<size_t> order;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    if (model.pieces[id].type == kNormal) order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return model.pieces[a].score > model.pieces[b].score; });
  Json merges = Json::array();
  for (const size_t id : order) {
    const std::string_view text = model.pieces[id].text;
    std::vector<std::pair<size_t, size_t>> splits;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left != ids.end() && right != ids.end()) splits.emplace_back(left->second, right->second);
    }
    std::sort(splits.begin(), splits.end());
    for (const auto& [left, right] : splits)
      merges.push_back({model.pieces[left].text, model.pieces[right].text});
  }
  return merges;
}

Json to_json(const Model& model) {
  Json vocab = Json::object(), added = Json::array(), unknown = nullptr;
  std::unordered_map<std::string_view, size_t> ids;  // of pieces that merges are made of
  std::unordered_set<std::string_view> seen;
  auto& entries = vocab.get_ref<Json::object_t&>();  // [] would look through all of them
  entries.reserve(model.pieces.size());
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type == kUserDefined) fail(Fault::kData, "has user-defined pieces ('", piece.text, "')");
    if (!seen.insert(piece.text).second) fail(Fault::kData, "has the piece '", piece.text, "' twice");
    entries.emplace_back(piece.text, id);
    if (piece.type == kNormal) ids[piece.text] = id;
    if (piece.type == kUnknown) unknown = piece.text;
    if (piece.type != kUnknown && piece.type != kControl) continue;
    added.push_back({{"id", id},
                     {"content", piece.text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json spaces = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMarker}};
  const Json back = {{"type", "Replace"}, {"pattern", {{"String", kSpaceMarker}}}, {"content", " "}};
  Json normalizers = Json::array(),
       decoders = Json::array({back, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (model.dummy_prefix) {
    normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpaceMarker}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  normalizers.push_back(spaces);
  const Json bpe = {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", unknown},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", true},
                    {"byte_fallback", true},
                    {"ignore_merges", false},
                    {"vocab", vocab},
                    {"merges", merges_of(model, ids)}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
          {"model", bpe}};
}

}  // namespace

std::string sentencepiece_to_json(std::string_view model, const std::string& origin) {
  try {
    return to_json(parse(model)).dump();
  } catch (const std::exception& error) {
    fail(Fault::kData, origin, ": as a SentencePiece model: ", error.what());
  }
}

}  // namespace switchyard
