#include "trainer/data/bpe_trainer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>

#include "kernels/check.h"
#include "trainer/data/tokenizer.h"
#include "trainer/data/utf8.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;
using Pair = std::pair<int32_t, int32_t>;

struct PairHash {
  size_t operator()(const Pair& pair) const {
    return std::hash<uint64_t>()(static_cast<uint64_t>(pair.first) << 32 |
                                 static_cast<uint32_t>(pair.second));
  }
};

struct Word {
  std::vector<int32_t> ids;
  int64_t count;
};

struct PairUse {
  int64_t count = 0;
  std::vector<int32_t> words;  // where it occurred when last seen; some may have lost it since
};

// Most frequent first, of equals the smaller ids.
struct Entry {
  int64_t count;
  Pair pair;
  bool operator<(const Entry& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Merger {
 public:
  explicit Merger(const BpeTrainer::Counts& counts) {
    for (const auto& [text, count] : counts) {
      Word word{{}, count};
      for (const char byte : text) word.ids.push_back(static_cast<uint8_t>(byte));
      words_.push_back(std::move(word));
    }
    // A hash map's order is no order: sorting makes the result depend on the text alone.
    std::sort(words_.begin(), words_.end(), [](const Word& a, const Word& b) { return a.ids < b.ids; });
    for (size_t w = 0; w < words_.size(); ++w) {
      for (size_t i = 0; i + 1 < words_[w].ids.size(); ++i) {
        add({words_[w].ids[i], words_[w].ids[i + 1]}, static_cast<int32_t>(w), words_[w].count);
      }
    }
    for (const auto& [pair, use] : uses_) heap_.push({use.count, pair});
  }

  // The next pair to merge; false where none occurs twice.
  bool next(Pair& pair) {
    while (!heap_.empty()) {
      const Entry best = heap_.top();
      heap_.pop();
      const int64_t count = uses_[best.pair].count;
      if (count != best.count) {  // has changed since: back with what it is now
        if (count > 1) heap_.push({count, best.pair});
        continue;
      }
      if (count < 2) return false;
      pair = best.pair;
      return true;
    }
    return false;
  }

  void merge(const Pair& pair, int32_t merged) {
    std::vector<int32_t> places = std::move(uses_[pair].words);
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    touched_.clear();
    for (const int32_t w : places) merge_in(w, pair, merged);
    uses_.erase(pair);
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    for (const Pair& fresh : touched_) heap_.push({uses_[fresh].count, fresh});
  }

 private:
  void add(const Pair& pair, int32_t word, int64_t count) {
    PairUse& use = uses_[pair];
    use.count += count;
    if (count > 0 && (use.words.empty() || use.words.back() != word)) use.words.push_back(word);
  }

  // Counts of a word's pairs go, the pair is merged from the left, and the counts come back.
  void merge_in(int32_t w, const Pair& pair, int32_t merged) {
    Word& word = words_[w];
    std::vector<int32_t> ids;
    for (size_t i = 0; i < word.ids.size(); ++i) {
      const bool here =
          i + 1 < word.ids.size() && word.ids[i] == pair.first && word.ids[i + 1] == pair.second;
      ids.push_back(here ? merged : word.ids[i]);
      i += here;
    }
    if (ids.size() == word.ids.size()) return;
    for (size_t i = 0; i + 1 < word.ids.size(); ++i) add({word.ids[i], word.ids[i + 1]}, w, -word.count);
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      add({ids[i], ids[i + 1]}, w, word.count);
      if (ids[i] == merged || ids[i + 1] == merged) touched_.push_back({ids[i], ids[i + 1]});
    }
    word.ids = std::move(ids);
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, PairUse, PairHash> uses_;
  std::priority_queue<Entry> heap_;
  std::vector<Pair> touched_;
};

std::string byte_level(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) append_utf8(text, byte_level_code_point(static_cast<uint8_t>(byte)));
  return text;
}

// The tokenizer of single bytes with words, and a longer vocabulary.
std::string to_json(const std::vector<std::string>& learned,
                    const std::vector<std::pair<std::string, std::string>>& merges) {
  Json json = Json::parse(ByteTokenizer().to_hugging_face_json());
  json["pre_tokenizer"]["use_regex"] = true;
  json["decoder"]["use_regex"] = true;
  for (size_t i = 0; i < learned.size(); ++i) {
    json["model"]["vocab"][byte_level(learned[i])] = BpeTrainer::kFirstMerge + static_cast<int64_t>(i);
  }
  for (const auto& [left, right] : merges)
    json["model"]["merges"].push_back({byte_level(left), byte_level(right)});
  return json.dump(1);
}

}  // namespace

BpeTrainer::BpeTrainer() : pre_tokenizer_({kGpt2Pattern}) {}

BpeTrainer::Counts BpeTrainer::count_words(std::string_view text) const {
  std::unordered_map<std::string_view, int64_t> counts;
  for (const std::string_view word : pre_tokenizer_.split(text)) ++counts[word];
  Counts owned;
  for (const auto& [word, count] : counts) owned.emplace(word, count);
  return owned;
}

void BpeTrainer::add(const Counts& counts) {
  for (const auto& [word, count] : counts) counts_[word] += count;
}

std::string BpeTrainer::train(int64_t vocab_size) const {
  CHECK(vocab_size > kFirstMerge, vocab_size);
  Merger merger(counts_);
  std::vector<std::string> pieces(kFirstMerge);
  std::unordered_map<std::string, int32_t> ids;  // two pairs may make the same piece: it has one id
  for (int byte = 0; byte < 256; ++byte) pieces[byte] = static_cast<char>(byte);
  std::vector<std::pair<std::string, std::string>> merges;
  Pair pair;
  while (static_cast<int64_t>(pieces.size()) < vocab_size && merger.next(pair)) {
    merges.emplace_back(pieces[pair.first], pieces[pair.second]);
    const std::string piece = merges.back().first + merges.back().second;
    const auto [known, fresh] = ids.try_emplace(piece, static_cast<int32_t>(pieces.size()));
    if (fresh) pieces.push_back(piece);
    merger.merge(pair, known->second);
  }
  const std::vector<std::string> learned(pieces.begin() + kFirstMerge, pieces.end());
  return to_json(learned, merges);
}

}  // namespace switchyard
