#include "trainer/data/bpe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/trainer/temporary_folder.h"
#include "trainer/data/bpe_trainer.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

std::string learned(const std::string& text, int64_t vocab_size) {
  BpeTrainer trainer;
  trainer.add(trainer.count_words(text));
  return trainer.train(vocab_size);
}

std::string lower_words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += " w" + std::to_string(i % 97) + "änder der die das";
  return text;
}

// SentencePiece's layout: characters and bytes first.
Json fallback_tokenizer() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  char name[8];
  for (int byte = 0; byte < 256; ++byte) {
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    vocab[name] = 3 + byte;
  }
  int id = 259;
  for (const char* piece : {"▁", "a", "b", "ab", "▁ab", "▁▁"}) vocab[piece] = id++;
  const auto special = [](const char* content, int value) {
    return Json{{"id", value}, {"content", content}, {"special", true}};
  };
  return {{"added_tokens", {special("<unk>", 0), special("<s>", 1), special("</s>", 2)}},
          {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}},
          {"pre_tokenizer", nullptr},
          {"model",
           {{"type", "BPE"},
            {"byte_fallback", true},
            {"unk_token", "<unk>"},
            {"vocab", vocab},
            {"merges", Json::parse(R"([["a", "b"], ["▁", "ab"], ["▁", "▁"]])")}}}};
}

TEST(BpeTrainer, MergesTheMostFrequentPairFirst) {
  // " ab" four times and "ab" once at the start: (a, b) 5 times, then (" ", ab).
  const auto json = Json::parse(learned("ab ab ab ab ab", 259));
  EXPECT_EQ(json["model"]["merges"], Json::parse(R"([["a","b"],["Ġ","ab"]])"));
  EXPECT_EQ(json["model"]["vocab"]["Ġab"], 258);
}

TEST(BpeTrainer, StopsWhereNoPairOccursTwice) {
  const auto json = Json::parse(learned("abcdefg", 300));
  EXPECT_EQ(json["model"]["vocab"].size(), 257U);
}

TEST(BpeTrainer, IsDeterministicWhateverTheOrderOfTheParts) {
  BpeTrainer one, two;
  const auto a = one.count_words(lower_words(50)), b = one.count_words("der Bär " + lower_words(7));
  one.add(a);
  one.add(b);
  two.add(b);
  two.add(a);
  EXPECT_EQ(one.train(320), two.train(320));
}

TEST(Bpe, MergesAsTheTrainerCounted) {
  const auto tokenizer = load_tokenizer_json(learned("ab ab ab ab ab", 259), "learned");
  EXPECT_EQ(tokenizer->encode("ab ab b"), (Ids{257, 258, 32, 98}));
}

TEST(Bpe, RoundTripsAnyBytes) {
  const auto tokenizer = load_tokenizer_json(learned(lower_words(200), 400), "learned");
  EXPECT_GT(tokenizer->vocab_size(), 300);
  for (const std::string& text :
       {lower_words(20), std::string("龟 🐢\n\n\t x  "), std::string("\xff\xfe ab\x80\0z", 8),
        std::string(5000, 'd'), std::string(3000, ' ')}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(Bpe, ALongWordIsMergedInTime) {
  const auto tokenizer = load_tokenizer_json(learned(lower_words(200), 400), "learned");
  const std::string text(1 << 20, 'd');  // quadratic work would take an hour
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)).size(), text.size());
}

TEST(Bpe, SpecialTokensAreNotMadeFromText) {
  const auto tokenizer = load_tokenizer_json(learned("ab ab", 258), "learned");
  for (const int32_t id : tokenizer->encode("<eos>")) EXPECT_NE(id, 256);
  EXPECT_EQ(tokenizer->eos(), 256);
  EXPECT_EQ(tokenizer->decode(Ids{97, 256, 98}), "ab");
}

TEST(Bpe, ByteFallbackTakesCharactersThenBytes) {
  const auto tokenizer = load_tokenizer_json(fallback_tokenizer().dump(), "spm");
  EXPECT_EQ(tokenizer->encode("ab ab  bä"), (Ids{262, 263, 264, 261, 3 + 0xC3, 3 + 0xA4}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("ab ab  bä\n\xff")), "ab ab  bä\n\xff");
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->byte_length(263), 3);
}

TEST(Bpe, APrependedSpaceIsTakenOffAgain) {
  Json json = fallback_tokenizer();
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "Prepend"}, {"prepend", "▁"}}, json["normalizer"]}}};
  const auto tokenizer = load_tokenizer_json(json.dump(), "spm");
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{263}));
  EXPECT_EQ(tokenizer->decode(Ids{263, 259}), "ab ");
}

TEST(Bpe, MergesMayBeWrittenAsOneString) {
  Json json = Json::parse(learned("ab ab ab ab ab", 259));
  json["model"]["merges"] = {"a b", "Ġ ab"};
  EXPECT_EQ(load_tokenizer_json(json.dump(), "old")->encode(" ab"), (Ids{258}));
}

TEST(Bpe, SplitPatternsCutOneAfterTheOther) {
  Json json = Json::parse(learned("1212\n1212\n1212", 262));
  EXPECT_EQ(load_tokenizer_json(json.dump(), "words")->encode("1212").size(), 1U);
  json["pre_tokenizer"]["use_regex"] = false;
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "\\p{N}"}}}, {"behavior", "Isolated"}},
        json["pre_tokenizer"]}}};
  EXPECT_EQ(load_tokenizer_json(json.dump(), "digits")->encode("1212"), (Ids{49, 50, 49, 50}));
}

TEST(Bpe, RefusesWhatItWouldGetWrong) {
  const auto refuse = [](const char* pointer, const Json& value, const std::string& part) {
    Json json = Json::parse(learned("ab ab ab", 258));
    json[Json::json_pointer(pointer)] = value;
    EXPECT_EQ(fault_of([&] { load_tokenizer_json(json.dump(), "t.json"); }, part), Fault::kData) << pointer;
  };
  refuse("/model/type", "Unigram", "t.json: model type");
  refuse("/model/merges/0/1", "x", "not in the vocabulary");
  refuse("/model/vocab/ab", -1, "out of range");
  refuse("/model/vocab/ab", 1e12, "out of range");
  refuse("/model/vocab", 3, "t.json");
  refuse("/normalizer", Json{{"type", "Lowercase"}}, "Lowercase");
  refuse("/pre_tokenizer", Json{{"type", "BertPreTokenizer"}}, "BertPreTokenizer");
  refuse("/pre_tokenizer", nullptr, "neither ByteLevel nor byte_fallback");
}

}  // namespace
}  // namespace switchyard
