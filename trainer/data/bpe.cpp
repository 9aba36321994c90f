#include "trainer/data/bpe.h"

#include <queue>

#include "trainer/data/normalize.h"
#include "trainer/data/utf8.h"

namespace switchyard {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// A pair that could be merged; stale once either side has changed.
struct Candidate {
  int32_t rank;
  int32_t at;  // index of the left token
  int32_t left, right, merged;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

}  // namespace

BpeTokenizer::BpeTokenizer(BpeModel model, std::string json)
    : model_(std::move(model)), json_(std::move(json)), pre_tokenizer_(model_.patterns) {
  merges_.reserve(model_.merges.size());
  for (size_t rank = 0; rank < model_.merges.size(); ++rank) {
    const auto& [left, right, merged] = model_.merges[rank];
    merges_.emplace(pair_key(left, right), Merge{static_cast<int32_t>(rank), merged});
  }
}

std::string_view BpeTokenizer::bytes_of(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return model_.bytes[static_cast<size_t>(id)];
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids) const {
  std::string text = Tokenizer::decode(ids);
  if (model_.byte_fallback && model_.prefix_space && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::vector<int32_t> BpeTokenizer::encode_part(std::string_view text, bool first) const {
  std::string composed, prefixed;
  if (model_.nfc && !is_surely_nfc(text)) {
    composed = to_nfc(text);
    text = composed;
  }
  if (model_.prefix_space && first && !text.empty() && (model_.byte_fallback || text[0] != ' ')) {
    prefixed = concat(' ', text);
    text = prefixed;
  }
  std::vector<int32_t> ids;
  std::unordered_map<std::string_view, std::vector<int32_t>> known;  // most words come again
  for (const std::string_view word : pre_tokenizer_.split(text)) {
    auto [entry, fresh] = known.try_emplace(word);
    if (fresh) entry->second = encode_word(word);
    ids.insert(ids.end(), entry->second.begin(), entry->second.end());
  }
  return ids;
}

std::vector<int32_t> BpeTokenizer::encode_word(std::string_view word) const {
  if (!model_.whole_words.empty()) {
    const auto whole = model_.whole_words.find(std::string(word));
    if (whole != model_.whole_words.end()) return {whole->second};
  }
  std::vector<int32_t> ids = first_tokens(word);
  merge(ids);
  return ids;
}

std::vector<int32_t> BpeTokenizer::first_tokens(std::string_view word) const {
  std::vector<int32_t> ids;
  ids.reserve(word.size());
  const auto add_byte = [&](char byte) {
    const int32_t id = model_.byte_ids[static_cast<uint8_t>(byte)];
    if (id >= 0 || model_.unknown >= 0) ids.push_back(id >= 0 ? id : model_.unknown);
  };
  while (!word.empty()) {
    const auto length = model_.byte_fallback ? static_cast<size_t>(std::max(1, read_utf8(word).bytes)) : 1;
    const auto character = model_.byte_fallback ? model_.characters.find(std::string(word.substr(0, length)))
                                                : model_.characters.end();
    if (character != model_.characters.end()) {
      ids.push_back(character->second);
    } else {
      for (const char byte : word.substr(0, length)) add_byte(byte);
    }
    word.remove_prefix(length);
  }
  return ids;
}

// A heap of candidates over a doubly linked list: n log n also where a "word" is a whole text.
void BpeTokenizer::merge(std::vector<int32_t>& ids) const {
  const auto count = static_cast<int32_t>(ids.size());
  std::vector<int32_t> next(ids.size()), previous(ids.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  const auto propose = [&](int32_t at) {
    if (at < 0 || next[at] >= count) return;
    const int32_t right = ids[next[at]];
    const auto known = merges_.find(pair_key(ids[at], right));
    if (known != merges_.end()) heap.push({known->second.rank, at, ids[at], right, known->second.merged});
  };
  for (int32_t i = 0; i < count; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (int32_t i = 0; i < count; ++i) propose(i);
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    const int32_t right = next[best.at];
    if (ids[best.at] != best.left || right >= count || ids[right] != best.right) continue;
    ids[best.at] = best.merged;
    ids[right] = -1;  // gone
    next[best.at] = next[right];
    if (next[right] < count) previous[next[right]] = best.at;
    propose(previous[best.at]);
    propose(best.at);
  }
  std::erase(ids, -1);
}

}  // namespace switchyard
