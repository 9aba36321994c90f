#include "trainer/data/token_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/trainer/temporary_folder.h"

namespace switchyard {
namespace {

template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  std::string bytes;
  for (const T value : values) bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
  return bytes;
}

// An index as Megatron writes it, with whatever numbers a test wants in it.
struct Index {
  uint64_t version = 1, sequences = 3, bounds = 3;
  uint8_t type = 8;
  std::string lengths = bytes_of<int32_t>({2, 3, 1});
  std::string offsets = bytes_of<int64_t>({0, 4, 10});
  std::string documents = bytes_of<int64_t>({0, 2, 3});
  std::string modes;

  std::string bytes() const {
    return std::string("MMIDIDX\0\0", 9) + bytes_of({version}) + bytes_of({type}) +
           bytes_of({sequences, bounds}) + lengths + offsets + documents + modes;
  }
};

class TokenFileTest : public ::testing::Test {
 protected:
  TokenFile open(const Index& index) {
    write_bytes(folder_ / "d.bin", bin_);
    write_bytes(folder_ / "d.idx", index.bytes());
    return TokenFile::open(folder_ / "d");
  }
  void expect_damaged(const Index& index, const std::string& part) {
    EXPECT_EQ(fault_of([&] { open(index); }, part), Fault::kData);
  }

  TemporaryFolder folder_;
  std::string bin_ = bytes_of<uint16_t>({10, 11, 20, 21, 22, 30});
};

TEST_F(TokenFileTest, ReadsWhatMegatronWrites) {
  const TokenFile file = open({});
  EXPECT_EQ(file.tokens(), 6);
  EXPECT_EQ(file.sequences(), 3);
  EXPECT_EQ(file.documents(), 2);
  EXPECT_FALSE(file.sidecar());
  std::vector<int32_t> tokens(6);
  file.read(0, 6, tokens.data());
  EXPECT_EQ(tokens, (std::vector<int32_t>{10, 11, 20, 21, 22, 30}));
}

TEST_F(TokenFileTest, ReadingWrapsRoundAtTheEnd) {
  const TokenFile file = open({});
  std::vector<int32_t> tokens(9);
  file.read(5 + 6, 9, tokens.data());
  EXPECT_EQ(tokens, (std::vector<int32_t>{30, 10, 11, 20, 21, 22, 30, 10, 11}));
}

TEST_F(TokenFileTest, FindsTheDocumentOfAPosition) {
  Index index;  // an empty document between the two
  index.bounds = 4;
  index.documents = bytes_of<int64_t>({0, 2, 2, 3});
  const TokenFile file = open(index);
  std::vector<int64_t> found;
  for (int64_t position = 0; position < 6; ++position) found.push_back(file.document_of(position));
  EXPECT_EQ(found, (std::vector<int64_t>{0, 0, 0, 0, 0, 2}));
  EXPECT_EQ(file.document_begin(3), 6);
}

TEST_F(TokenFileTest, AcceptsModesAndTheEndingOfAFileName) {
  Index index;
  index.modes = std::string(3, '\0');
  open(index);
  EXPECT_EQ(TokenFile::open(folder_ / "d.bin").tokens(), 6);
}

TEST_F(TokenFileTest, RefusesEveryTruncation) {
  const std::string whole = Index{}.bytes();
  write_bytes(folder_ / "d.bin", bin_);
  for (size_t size = 0; size < whole.size(); ++size) {
    write_bytes(folder_ / "d.idx", whole.substr(0, size));
    EXPECT_EQ(fault_of([&] { TokenFile::open(folder_ / "d"); }, "d.idx"), Fault::kData) << size;
  }
}

TEST_F(TokenFileTest, RefusesCountsThatTheFileCannotHold) {
  for (const uint64_t count : {uint64_t{4}, uint64_t{1} << 40, UINT64_MAX / 12 + 2, UINT64_MAX}) {
    Index sequences, bounds;
    sequences.sequences = count;
    bounds.bounds = count;
    expect_damaged(sequences, "d.idx");
    expect_damaged(bounds, "d.idx");
  }
}

TEST_F(TokenFileTest, RefusesANegativeLength) {
  Index index;
  index.lengths = bytes_of<int32_t>({2, -3, 7});
  expect_damaged(index, "sequence 1 has length -3");
}

TEST_F(TokenFileTest, RefusesALengthBeyondTheTokens) {
  Index index;
  index.lengths = bytes_of<int32_t>({2, 3, INT32_MAX});
  expect_damaged(index, "sequence 2 of 2147483647 tokens");
}

TEST_F(TokenFileTest, RefusesOverlapsHolesAndWildOffsets) {
  for (const int64_t offset : {int64_t{2}, int64_t{6}, int64_t{-4}, INT64_MAX, INT64_MIN}) {
    Index index;
    index.offsets = bytes_of<int64_t>({0, offset, 10});
    expect_damaged(index, "sequence 1 starts at byte");
  }
}

TEST_F(TokenFileTest, RefusesTokensOutsideTheIndex) {
  bin_ += bytes_of<uint16_t>({1});
  expect_damaged({}, "14 bytes, but the index describes 12");
}

TEST_F(TokenFileTest, RefusesHalfAToken) {
  bin_.pop_back();
  expect_damaged({}, "no whole number of u16 tokens");
}

TEST_F(TokenFileTest, RefusesDocumentsThatGoBackOrBeyond) {
  for (const auto& bounds :
       {bytes_of<int64_t>({1, 2, 3}), bytes_of<int64_t>({0, 4, 3}), bytes_of<int64_t>({0, 2, 2}),
        bytes_of<int64_t>({0, -1, 3}), bytes_of<int64_t>({0, 2, INT64_MAX})}) {
    Index index;
    index.documents = bounds;
    expect_damaged(index, "document");
  }
}

TEST_F(TokenFileTest, RefusesUnknownVersionsTypesAndMagic) {
  Index version, type;
  version.version = 2;
  type.type = 6;
  expect_damaged(version, "version 2");
  expect_damaged(type, "token type 6");
  write_bytes(folder_ / "d.idx", std::string(100, 'x'));
  EXPECT_EQ(fault_of([&] { TokenFile::open(folder_ / "d"); }, "no Megatron index"), Fault::kData);
}

TEST_F(TokenFileTest, NamesTheMissingFile) {
  EXPECT_EQ(fault_of([&] { TokenFile::open(folder_ / "absent"); }, "absent.idx"), Fault::kData);
}

TEST_F(TokenFileTest, NamesTheTokenBeyondTheVocabulary) {
  const TokenFile file = open({});
  file.check_tokens(31);
  EXPECT_EQ(file.max_token(), 30);
  EXPECT_EQ(fault_of([&] { file.check_tokens(22); }, "token 4 (document 0) is 22"), Fault::kData);
}

TEST_F(TokenFileTest, ANegativeTokenIsBeyondEveryVocabularyAndGivesNone) {
  bin_ = bytes_of<int32_t>({1, 2, 3, -5, 4, 5});
  Index index;
  index.type = 4;
  index.offsets = bytes_of<int64_t>({0, 8, 20});
  const TokenFile file = open(index);
  EXPECT_EQ(fault_of([&] { file.check_tokens(INT64_MAX); }, "token 3 (document 0) is -5"), Fault::kData);
  EXPECT_EQ(fault_of([&] { file.vocab_size(); }, "token 3 (document 0) is -5"), Fault::kData);
}

class WrittenTokenFile : public ::testing::TestWithParam<TokenType> {};

TEST_P(WrittenTokenFile, IsReadBack) {
  const TemporaryFolder folder;
  const std::vector<std::vector<int32_t>> documents = {{1, 2, 3}, {}, {255, 0}, {7}};
  TokenFileWriter writer(folder / "d", GetParam());
  for (const auto& document : documents) {
    writer.append(document);
    writer.end_document();
  }
  writer.finish({.tokenizer = "byte", .vocab_size = 257, .text_bytes = 5, .sources = {"a", "b"}});

  const TokenFile file = TokenFile::open(folder / "d");
  EXPECT_EQ(file.type(), GetParam());
  EXPECT_EQ(file.documents(), 4);
  std::vector<int32_t> tokens(6);
  file.read(0, 6, tokens.data());
  EXPECT_EQ(tokens, (std::vector<int32_t>{1, 2, 3, 255, 0, 7}));
  EXPECT_EQ(file.document_of(3), 2);
  ASSERT_TRUE(file.sidecar());
  EXPECT_EQ(file.sidecar()->tokens, 6);
  EXPECT_EQ(file.sidecar()->text_bytes, 5);
  EXPECT_EQ(file.sidecar()->sources, (std::vector<std::string>{"a", "b"}));
  file.check_tokens(INT32_MAX);
}

INSTANTIATE_TEST_SUITE_P(Types, WrittenTokenFile,
                         ::testing::Values(TokenType::kU8, TokenType::kU16, TokenType::kI32));

TEST(TokenFileWriter, LeavesNothingBehindUnlessFinished) {
  const TemporaryFolder folder;
  {
    TokenFileWriter writer(folder / "d", TokenType::kU16);
    const int32_t token = 1;
    writer.append({&token, 1});
    writer.end_document();
  }
  EXPECT_EQ(folder.entries(), 0U);
}

class DamagedTokenFile : public ::testing::Test {
 protected:
  DamagedTokenFile() {
    TokenFileWriter writer(folder_ / "d", TokenType::kU16);
    const std::vector<int32_t> tokens = {1, 2, 3};
    writer.append(tokens);
    writer.end_document();
    writer.finish({.tokenizer = "byte", .vocab_size = 257});
  }
  TemporaryFolder folder_;
};

TEST_F(DamagedTokenFile, IsFoundByItsChecksum) {
  write_bytes(folder_ / "d.bin", bytes_of<uint16_t>({1, 2, 4}));
  const TokenFile file = TokenFile::open(folder_ / "d");
  EXPECT_EQ(fault_of([&] { file.check_tokens(INT32_MAX); }, "d.bin: checksum"), Fault::kData);
}

TEST_F(DamagedTokenFile, HasAnotherFingerprint) {
  const uint64_t before = TokenFile::open(folder_ / "d").fingerprint();
  write_bytes(folder_ / "d.bin", bytes_of<uint16_t>({1, 2, 4}));
  EXPECT_NE(TokenFile::open(folder_ / "d").fingerprint(), before);
}

TEST_F(DamagedTokenFile, IsRefusedWhereItsDescriptionIsAnothers) {
  write_bytes(folder_ / "d.json", to_json(Sidecar{.tokenizer = "byte", .tokens = 4}));
  EXPECT_EQ(fault_of([&] { TokenFile::open(folder_ / "d"); }, "d.json: describes 4 tokens"), Fault::kData);
  write_bytes(folder_ / "d.json", "{\"format\": \"switchyard tokens\", \"tokens\": -1}");
  EXPECT_EQ(fault_of([&] { TokenFile::open(folder_ / "d"); }, "d.json"), Fault::kData);
  write_bytes(folder_ / "d.json", "{\"format\": ");
  EXPECT_EQ(fault_of([&] { TokenFile::open(folder_ / "d"); }, "d.json"), Fault::kData);
}

TEST_F(DamagedTokenFile, TheJsonOfSomethingElseIsNoDescription) {
  for (const char* text : {"{\"tokens\": -1}", "[1, 2]", "{\"format\": 3}"}) {
    write_bytes(folder_ / "d.json", text);
    const TokenFile file = TokenFile::open(folder_ / "d");
    EXPECT_FALSE(file.sidecar());
    EXPECT_EQ(file.vocab_size(), 4);
  }
}

}  // namespace
}  // namespace switchyard
