#include "trainer/data/normalize.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "trainer/data/bpe_trainer.h"
#include "trainer/data/tokenizer.h"

namespace switchyard {
namespace {

TEST(Normalize, ComposesAndOrdersMarks) {
  EXPECT_EQ(to_nfc("a\u0308"), "\u00e4");
  EXPECT_EQ(to_nfc("A\u030a \u212b"), "\u00c5 \u00c5");               // the angstrom sign is the letter
  EXPECT_EQ(to_nfc("q\u0307\u0323"), "q\u0323\u0307");                // marks by class
  EXPECT_EQ(to_nfc("\u1112\u1161\u11ab"), "\ud55c");                  // Hangul
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093c");                        // never composed
  EXPECT_EQ(to_nfc("\ufb01 \u00b2 \uff21"), "\ufb01 \u00b2 \uff21");  // compatibility is another form
}

TEST(Normalize, LeavesOtherBytesAlone) {
  EXPECT_EQ(to_nfc(""), "");
  EXPECT_EQ(to_nfc("\xff"
                   "a\u0308\xc3"),
            "\xff\u00e4\xc3");
  EXPECT_EQ(to_nfc(std::string("a\0b\u0300", 5)), std::string("a\0b\u0300", 5));
}

TEST(Normalize, KnowsPlainTextAtOnce) {
  EXPECT_TRUE(is_surely_nfc("plain, \u00e4\u00f6\u00fc\u00df"));
  EXPECT_FALSE(is_surely_nfc("a\u0308"));
  EXPECT_FALSE(is_surely_nfc("\u65e5"));
}

TEST(Normalize, ATokenizerThatAsksForItComposesFirst) {
  BpeTrainer trainer;
  trainer.add(trainer.count_words("ä ä ä ä"));
  auto json = nlohmann::json::parse(trainer.train(259));
  const auto plain = load_tokenizer_json(json.dump(), "plain");
  json["normalizer"] = {{"type", "NFC"}};
  const auto composing = load_tokenizer_json(json.dump(), "composing");
  EXPECT_NE(plain->encode("a\u0308"), plain->encode("\u00e4"));
  EXPECT_EQ(composing->encode("a\u0308"), plain->encode("\u00e4"));
}

}  // namespace
}  // namespace switchyard
