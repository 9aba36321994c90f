#include "trainer/data/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/trainer/temporary_folder.h"
#include "trainer/data/utf8.h"

namespace switchyard {
namespace {

std::string every_byte() {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

TEST(ByteTokenizer, RoundTripsAnyBytes) {
  const ByteTokenizer tokenizer;
  for (const std::string& text :
       {std::string("żółw 龟 🐢\n\t "), std::string("\xff\xfe\x80 \xe2\x82"), every_byte(), std::string()}) {
    const std::vector<int32_t> ids = tokenizer.encode(text);
    EXPECT_EQ(ids.size(), text.size());
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
}

TEST(ByteTokenizer, TheEndOfADocumentIsNoText) {
  const ByteTokenizer tokenizer;
  EXPECT_EQ(tokenizer.eos(), 256);
  EXPECT_EQ(tokenizer.byte_length(256), 0);
  EXPECT_EQ(tokenizer.byte_length(255), 1);
  EXPECT_EQ(tokenizer.byte_length(-1), 0);
  EXPECT_EQ(tokenizer.byte_length(100000), 0);
}

TEST(ByteTokenizer, IsMadeAgainFromItsJson) {
  const ByteTokenizer tokenizer;
  const auto again = load_tokenizer_json(tokenizer.to_json(), "a checkpoint");
  EXPECT_EQ(again->fingerprint(), tokenizer.fingerprint());
  EXPECT_EQ(again->vocab_size(), 257);
}

TEST(ByteTokenizer, HuggingFaceVocabularyHas257Entries) {
  const auto json = nlohmann::json::parse(ByteTokenizer().to_hugging_face_json());
  EXPECT_EQ(json["model"]["vocab"].size(), 257U);
  EXPECT_EQ(json["model"]["vocab"]["Ġ"], 32);
  EXPECT_EQ(json["model"]["vocab"]["ÿ"], 255);
}

TEST(LoadTokenizer, RefusesWhatIsNone) {
  EXPECT_EQ(fault_of([] { load_tokenizer_json("[1]", "t.json"); }, "t.json"), Fault::kData);
  EXPECT_EQ(fault_of([] { load_tokenizer_json("{", "t.json"); }, "t.json"), Fault::kData);
  EXPECT_EQ(fault_of([] { load_tokenizer("/absent/t.json"); }, "/absent/t.json"), Fault::kData);
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> parts;
  for (const int32_t id : tokenizer.encode("a🐢")) parts.push_back(decoder.push(id));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "", "", "🐢"}));
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, NeverPrintsInvalidUtf8) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : tokenizer.encode("\xe2\x82"
                                           "a\xff"
                                           "b\xf0\x9f"))
    text += decoder.push(id);
  text += decoder.push(256);
  text += decoder.finish();
  EXPECT_EQ(text, "��a�b��");
}

TEST(Utf8, RefusesLongFormsSurrogatesAndLargeValues) {
  for (const char* text :
       {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x80\x80\x80", "\x80"}) {
    EXPECT_EQ(read_utf8(text).bytes, 0) << text;
    EXPECT_FALSE(read_utf8(text).unfinished) << text;
  }
}

TEST(Utf8, AWrongStartIsNotHeldBack) {
  EXPECT_TRUE(read_utf8("\xe2\x82").unfinished);
  EXPECT_FALSE(read_utf8("\xed\xa0").unfinished);
  EXPECT_FALSE(read_utf8("\xf4\x90").unfinished);
  EXPECT_FALSE(read_utf8("\xc0").unfinished);
}

TEST(Utf8, EveryCodePointRoundTrips) {
  for (uint32_t point = 0; point <= 0x10FFFF; point += point < 0x1000 ? 1 : 97) {
    if (point >= 0xD800 && point <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, point);
    const Utf8Char read = read_utf8(text);
    ASSERT_EQ(read.code_point, point);
    ASSERT_EQ(read.bytes, static_cast<int>(text.size()));
  }
}

}  // namespace
}  // namespace switchyard
