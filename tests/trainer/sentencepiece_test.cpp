#include "trainer/data/sentencepiece.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "tests/trainer/temporary_folder.h"
#include "trainer/data/tokenizer.h"

namespace switchyard {
namespace {

using Ids = std::vector<int32_t>;

std::string field(int number, const std::string& bytes) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}

std::string flag(int number, int value) {
  std::string text;
  for (int tag = number << 3; tag > 0; tag >>= 7)
    text.push_back(static_cast<char>((tag & 0x7F) | (tag > 0x7F ? 0x80 : 0)));
  return text + static_cast<char>(value);
}

std::string piece(const std::string& text, float score, int type = 1) {
  std::string number(4, '\0');
  std::memcpy(number.data(), &score, 4);
  return field(1, field(1, text) + '\x15' + number + flag(3, type));
}

// 0 <unk>, 1 <s>, 2 </s>, 3 .. 258 the bytes, then pieces by score.
std::string model(bool dummy_prefix, int type = 2) {
  std::string bytes = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  char name[8];
  for (int byte = 0; byte < 256; ++byte) {
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    bytes += piece(name, 0, 6);
  }
  float score = 0;
  for (const char* text : {"ab", "abc", "bc", "▁ab", "a", "b", "c", "▁"}) bytes += piece(text, score--);
  return bytes + field(2, flag(3, type) + flag(35, 1)) + field(3, flag(3, dummy_prefix) + flag(4, 0));
}

std::unique_ptr<Tokenizer> load(const std::string& bytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "t.model", bytes);
  return load_tokenizer(folder / "t.model");
}

TEST(SentencePiece, MergesTheBestScoreFirst) {
  const auto tokenizer = load(model(false));
  EXPECT_EQ(tokenizer->vocab_size(), 267);
  EXPECT_EQ(tokenizer->encode("abc bc ab"), (Ids{260, 266, 261, 262}));
  EXPECT_EQ(tokenizer->encode("aä"), (Ids{263, 3 + 0xC3, 3 + 0xA4}));
  EXPECT_EQ(tokenizer->eos(), 2);
}

TEST(SentencePiece, RoundTripsWithADummyPrefix) {
  const auto tokenizer = load(model(true));
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{262}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("ab  \n龟 c")), "ab  \n龟 c");
}

TEST(SentencePiece, RefusesOtherModels) {
  EXPECT_EQ(fault_of([] { load(model(false, 1)); }, "no BPE"), Fault::kData);
  EXPECT_EQ(fault_of([] { load(""); }, "no pieces"), Fault::kData);
}

TEST(SentencePiece, RefusesEveryTruncation) {
  const std::string whole = model(false);
  for (size_t size = 0; size < whole.size(); size += 3) {
    EXPECT_EQ(fault_of([&] { sentencepiece_to_json(whole.substr(0, size), "t.model"); }, "t.model"),
              Fault::kData);
  }
}

}  // namespace
}  // namespace switchyard
