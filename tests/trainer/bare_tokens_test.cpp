// llm.c's and nanoGPT's token files, and which kind a path stands for.
#include "trainer/data/bare_tokens.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/trainer/temporary_folder.h"
#include "trainer/data/prepare.h"
#include "trainer/data/token_file.h"

namespace switchyard {
namespace {

using Row = std::vector<int32_t>;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string llm_c_header(int32_t magic, int32_t version, int32_t tokens) {
  Row header(256);
  header[0] = magic, header[1] = version, header[2] = tokens;
  return bytes_of(header);
}

std::string llm_c(const std::vector<uint16_t>& tokens) {
  return llm_c_header(20240520, 1, static_cast<int32_t>(tokens.size())) + bytes_of(tokens);
}

class BareTokensTest : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  Fault fault(const std::string& bytes, const std::string& message) {
    const std::string path = write("bad.bin", bytes);
    return fault_of([&] { TokenFile::open(path); }, "bad.bin: " + message);
  }
  static Row all(const TokenFile& file) {
    Row tokens(static_cast<size_t>(file.tokens()));
    file.read(0, file.tokens(), tokens.data());
    return tokens;
  }

  TemporaryFolder folder_;
};

TEST_F(BareTokensTest, ReadsNanoGpt) {
  const TokenFile file = TokenFile::open(write("train.bin", bytes_of<uint16_t>({7, 50256, 65535})));
  EXPECT_EQ(file.format(), TokenFormat::kNanoGpt);
  EXPECT_EQ(all(file), (Row{7, 50256, 65535}));
  EXPECT_EQ(file.documents(), 1);
  EXPECT_EQ(file.document_of(2), 0);
  EXPECT_EQ(file.document_begin(1), 3);
  EXPECT_EQ(file.max_token(), 65535);
}

TEST_F(BareTokensTest, ReadsLlmC) {
  const TokenFile file = TokenFile::open(write("a.bin", llm_c({1, 2, 50256})));
  EXPECT_EQ(file.format(), TokenFormat::kLlmC);
  EXPECT_EQ(all(file), (Row{1, 2, 50256}));
}

TEST_F(BareTokensTest, ReadsLlmCsWideTokens) {
  const std::string bytes = llm_c_header(20240801, 7, 2) + bytes_of<uint32_t>({128'000, 5});
  const TokenFile file = TokenFile::open(write("a.bin", bytes));
  EXPECT_EQ(all(file), (Row{128'000, 5}));
  EXPECT_EQ(file.type(), TokenType::kU32);
}

TEST_F(BareTokensTest, AnIndexBesideItMakesItMegatrons) {
  TokenFileWriter writer(folder_ / "a", TokenType::kU16);
  writer.append(Row{1, 2});
  writer.end_document();
  writer.finish({.tokenizer = "byte", .vocab_size = 3});
  EXPECT_EQ(TokenFile::open(folder_ / "a.bin").format(), TokenFormat::kMegatron);
  std::filesystem::remove(folder_ / "a.idx");
  EXPECT_EQ(TokenFile::open(folder_ / "a.bin").format(), TokenFormat::kNanoGpt);
}

TEST_F(BareTokensTest, APrefixStillNeedsItsIndex) {
  write("a.bin", "abcd");
  EXPECT_EQ(fault_of([&] { TokenFile::open(folder_ / "a"); }, "a.idx"), Fault::kData);
  EXPECT_FALSE(TokenFile::exists(folder_ / "a"));
  EXPECT_TRUE(TokenFile::exists(folder_ / "a.bin"));
  EXPECT_FALSE(TokenFile::exists(folder_ / "b.bin"));
}

TEST_F(BareTokensTest, RefusesDamagedFiles) {
  const std::string good = llm_c({1, 2, 3});
  EXPECT_EQ(fault("abc", "3 bytes are no whole number of u16 tokens"), Fault::kData);
  EXPECT_EQ(fault(good.substr(0, 1000), "1000 bytes are less than llm.c's header"), Fault::kData);
  EXPECT_EQ(fault(good.substr(0, 1028), "1028 bytes, but 3 u16 tokens (byte 8) make 1030"), Fault::kData);
  EXPECT_EQ(fault(good + "x", "1031 bytes, but 3 u16 tokens"), Fault::kData);
  EXPECT_EQ(fault(llm_c_header(20240520, 2, 0), "version 2 at byte 4, 1 expected"), Fault::kData);
  EXPECT_EQ(fault(llm_c_header(20240520, 1, -1), "-1 tokens at byte 8"), Fault::kData);
  EXPECT_EQ(fault(llm_c_header(20240801, 7, INT32_MAX), "1024 bytes, but 2147483647 u32"), Fault::kData);
  EXPECT_EQ(fault(llm_c_header(20240522, 1, 0), "holds questions of an evaluation"), Fault::kData);
}

TEST_F(BareTokensTest, ATokenBeyondTheVocabularyIsNamed) {
  const TokenFile file = TokenFile::open(write("a.bin", llm_c({1, 2, 300})));
  EXPECT_EQ(fault_of([&] { file.check_tokens(300); }, "a.bin: token 2 (document 0) is 300"), Fault::kData);
  const std::string wide = llm_c_header(20240801, 7, 1) + bytes_of<uint32_t>({UINT32_MAX});
  const TokenFile huge = TokenFile::open(write("b.bin", wide));
  EXPECT_EQ(fault_of([&] { huge.check_tokens(1000); }, "is 4294967295"), Fault::kData);
}

TEST_F(BareTokensTest, InspectShowsTheFormat) {
  const std::string text = describe_tokens(write("a.bin", llm_c({1, 2, 3})), true);
  EXPECT_NE(text.find("\"format\":\"llm.c\",\"type\":\"u16\",\"tokens\":3"), std::string::npos) << text;
}

}  // namespace
}  // namespace switchyard
