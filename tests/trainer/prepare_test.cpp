#include "trainer/data/prepare.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <zlib.h>
#include <zstd.h>

#include <nlohmann/json.hpp>

#include "tests/trainer/temporary_folder.h"
#include "trainer/data/pre_tokenizer.h"
#include "trainer/data/text_files.h"
#include "trainer/files/files.h"

namespace switchyard {
namespace {

std::string zstd_of(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

void write_gzip(const std::string& path, const std::string& text) {
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
}

std::string some_text(size_t lines) {
  std::string text;
  for (size_t i = 0; i < lines; ++i)
    text += "line " + std::to_string(i * 7919) + (i % 5 == 0 ? " \n\n  " : "\n");
  return text;
}

std::string text_of(const TokenFile& file) {
  std::vector<int32_t> ids(static_cast<size_t>(file.tokens()));
  file.read(0, file.tokens(), ids.data());
  std::string text;
  for (const int32_t id : ids) text += id == ByteTokenizer::kEos ? '|' : static_cast<char>(id);
  return text;
}

class PrepareTest : public ::testing::Test {
 protected:
  Sidecar run(const std::vector<std::string>& inputs) {
    return prepare({.inputs = inputs, .out = out_ / "d"}, [](const PrepareProgress&) {});
  }
  void expect_failure(const std::vector<std::string>& inputs, const std::string& part) {
    EXPECT_EQ(fault_of([&] { run(inputs); }, part), Fault::kData);
    EXPECT_EQ(out_.entries(), 0U);
  }
  std::string prepared(const std::vector<std::string>& inputs) {
    run(inputs);
    return text_of(TokenFile::open(out_ / "d"));
  }

  TemporaryFolder in_, out_;
};

TEST_F(PrepareTest, EveryFileIsADocument) {
  write_bytes(in_ / "a.txt", "one");
  write_bytes(in_ / "b", "two\xff");
  const Sidecar sidecar = run({in_ / "b", in_ / "a.txt"});
  EXPECT_EQ(text_of(TokenFile::open(out_ / "d")), "two\xff|one|");
  EXPECT_EQ(sidecar.documents, 2);
  EXPECT_EQ(sidecar.text_bytes, 7);
  EXPECT_EQ(sidecar.vocab_size, 257);
  EXPECT_EQ(out_.entries(), 3U);
}

TEST_F(PrepareTest, FoldersAreReadInOrderOfNames) {
  std::filesystem::create_directory(in_ / "m");
  write_bytes(in_ / "z.txt", "z");
  write_bytes(in_ / "m/x.md", "x");
  write_bytes(in_ / "a.txt", "a");
  write_bytes(in_ / "picture.png", "no text");
  EXPECT_EQ(prepared({in_ / ""}), "a|x|z|");
}

TEST_F(PrepareTest, EveryJsonLineIsADocument) {
  write_bytes(in_ / "a.jsonl",
              "{\"text\": \"one\", \"n\": 1}\n\n{\"text\": \"\"}\r\n{\"text\": \"\\u00e4\\n\"}");
  EXPECT_EQ(prepared({in_ / "a.jsonl"}), "one|ä\n|");
}

TEST_F(PrepareTest, CompressedFilesAreRead) {
  const std::string text = some_text(200000);
  write_gzip(in_ / "a.txt.gz", text);
  write_bytes(in_ / "b.txt.zst", zstd_of(text) + zstd_of("more"));
  EXPECT_TRUE(prepared({in_ / "a.txt.gz", in_ / "b.txt.zst"}) == text + "|" + text + "more|");
}

TEST_F(PrepareTest, TheFilesDoNotDependOnTheNumberOfThreads) {
  write_bytes(in_ / "a.txt", some_text(300000));
  const int threads = omp_get_max_threads();
  std::vector<uint64_t> sums;
  for (const int count : {1, 3}) {
    omp_set_num_threads(count);
    sums.push_back(run({in_ / "a.txt"}).bin_xxh3);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(sums[0], sums[1]);
}

TEST_F(PrepareTest, EmptyFilesAreNoDocuments) {
  write_bytes(in_ / "a.txt", "");
  write_bytes(in_ / "b.txt", "b");
  EXPECT_EQ(prepared({in_ / "a.txt", in_ / "b.txt"}), "b|");
}

TEST_F(PrepareTest, FailuresLeaveNothingBehind) {
  write_bytes(in_ / "good.txt", "good");
  write_bytes(in_ / "empty.txt", "");
  write_bytes(in_ / "plain.txt.gz", "not compressed");
  write_bytes(in_ / "plain.txt.zst", "not compressed");
  write_bytes(in_ / "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 3}\n");
  write_bytes(in_ / "worse.jsonl", "{\"text\": \"a\"}\n\n{\"text\n");
  expect_failure({in_ / "good.txt", in_ / "absent.txt"}, "absent.txt: no such file");
  expect_failure({in_ / "empty.txt"}, "no text");
  expect_failure({in_ / "good.txt", in_ / "plain.txt.gz"}, "plain.txt.gz: is no gzip file");
  expect_failure({in_ / "plain.txt.zst"}, "plain.txt.zst: is damaged");
  expect_failure({in_ / "bad.jsonl"}, "bad.jsonl:2: has no string named \"text\"");
  expect_failure({in_ / "worse.jsonl"}, "worse.jsonl:3: is no JSON");
}

TEST_F(PrepareTest, TruncatedCompressedFilesAreRefused) {
  write_gzip(in_ / "a.txt.gz", some_text(1000));
  const std::string gzip = read_file(in_ / "a.txt.gz"), zstd = zstd_of(some_text(1000));
  for (const double part : {0.3, 0.9, 0.999}) {
    write_bytes(in_ / "a.txt.gz",
                gzip.substr(0, static_cast<size_t>(static_cast<double>(gzip.size()) * part)));
    write_bytes(in_ / "b.txt.zst",
                zstd.substr(0, static_cast<size_t>(static_cast<double>(zstd.size()) * part)));
    expect_failure({in_ / "a.txt.gz"}, "a.txt.gz: is damaged");
    expect_failure({in_ / "b.txt.zst"}, "b.txt.zst: is damaged");
  }
}

TEST_F(PrepareTest, IsDescribed) {
  write_bytes(in_ / "a.txt", "abc");
  run({in_ / "a.txt"});
  const auto json = nlohmann::json::parse(describe_tokens(out_ / "d", true));
  EXPECT_EQ(json["tokens"], 4);
  EXPECT_EQ(json["documents"], 1);
  EXPECT_EQ(json["vocab_size"], 257);
  EXPECT_EQ(json["max_token"], 256);
  EXPECT_NE(describe_tokens(out_ / "d", false).find("97 98 99 256"), std::string::npos);
}

TEST_F(PrepareTest, TheTokenizerOfATokenFileIsFound) {
  write_bytes(in_ / "a.txt", "abc");
  run({in_ / "a.txt"});
  EXPECT_EQ(tokenizer_of(TokenFile::open(out_ / "d"))->vocab_size(), 257);
}

TEST_F(PrepareTest, ALearnedTokenizerLiesBesideTheTokens) {
  const std::string text = some_text(20000);
  write_bytes(in_ / "a.txt", text);
  const PrepareOptions options{
      .inputs = {in_ / "a.txt"}, .out = out_ / "d", .train_tokenizer = true, .vocab_size = 300};
  const Sidecar sidecar = prepare(options, [](const PrepareProgress&) {});
  EXPECT_EQ(sidecar.vocab_size, 300);
  EXPECT_EQ(sidecar.text_bytes, static_cast<int64_t>(text.size()));
  const TokenFile file = TokenFile::open(out_ / "d");
  std::vector<int32_t> ids(static_cast<size_t>(file.tokens()));
  file.read(0, file.tokens(), ids.data());
  EXPECT_TRUE(tokenizer_of(file)->decode(ids) == text);
  EXPECT_EQ(ids.back(), tokenizer_of(file)->eos());
  EXPECT_LT(ids.size(), text.size() * 3 / 4);
}

TEST_F(PrepareTest, AnotherTokenizerBesideTheTokensIsRefused) {
  write_bytes(in_ / "a.txt", some_text(100));
  const PrepareOptions options{
      .inputs = {in_ / "a.txt"}, .out = out_ / "d", .train_tokenizer = true, .vocab_size = 270};
  prepare(options, [](const PrepareProgress&) {});
  write_bytes(out_ / "d.tokenizer.json", ByteTokenizer().to_hugging_face_json());
  EXPECT_EQ(fault_of([&] { tokenizer_of(TokenFile::open(out_ / "d")); }, "is not the tokenizer"),
            Fault::kData);
}

TEST_F(PrepareTest, AVocabularyMustHoldMoreThanTheBytes) {
  write_bytes(in_ / "a.txt", "abc");
  const PrepareOptions options{
      .inputs = {in_ / "a.txt"}, .out = out_ / "d", .train_tokenizer = true, .vocab_size = 257};
  EXPECT_EQ(fault_of([&] { prepare(options, [](const PrepareProgress&) {}); }, "--vocab-size 257"),
            Fault::kUsage);
  EXPECT_EQ(out_.entries(), 0U);
}

TEST_F(PrepareTest, BlocksAreCutBetweenLinesOfText) {
  const std::string text = some_text(500);
  write_bytes(in_ / "a.txt", text);
  for (const int64_t size : {1, 7, 64, 100000}) {
    BlockReader reader(in_ / "a.txt", size);
    TextBlock block;
    std::string joined;
    int64_t blocks = 0, ends = 0;
    for (; reader.next(block); ++blocks) {
      EXPECT_EQ(block.first_line, 1 + std::count(joined.begin(), joined.end(), '\n'));
      joined += block.text;
      ends += block.ends_document;
    }
    EXPECT_EQ(joined, text);
    EXPECT_EQ(ends, 1);
    EXPECT_EQ(blocks > 10, size < 100) << blocks;
  }
}

// Lines that end in letters, white space, punctuation and characters of several bytes; with blank lines,
// carriage returns, and wide spaces at their ends and beginnings.
TEST_F(PrepareTest, TheWordsOfBlocksAreThoseOfTheText) {
  const char* const kLlama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::vector<std::string> lines = {"word",
                                          "12",
                                          "a line.",
                                          "  indented",
                                          "wide \xe3\x80\x80",
                                          "\xe3\x80\x80"
                                          "begins",
                                          "\xd1\x8f",
                                          "trail  ",
                                          "\xc2\xa0nbsp",
                                          ""};
  const std::vector<std::string> ends = {"\n", "\r\n", "\n\n", "\n \n", "\r\n\r\n"};
  std::string text;
  for (size_t i = 0; i < 600; ++i) text += lines[i * 7 % lines.size()] + ends[i / 3 % ends.size()];
  write_bytes(in_ / "a.txt", text);
  for (const char* pattern : {kGpt2Pattern, kLlama3}) {
    const PreTokenizer words({pattern});
    const auto split = [&](const std::string& part) {
      const auto pieces = words.split(part);
      return std::vector<std::string>(pieces.begin(), pieces.end());
    };
    for (const int64_t size : {1, 13, 100}) {
      BlockReader reader(in_ / "a.txt", size);
      TextBlock block;
      std::vector<std::string> found;
      int64_t blocks = 0;
      for (; reader.next(block); ++blocks)
        for (const std::string& word : split(block.text)) found.push_back(word);
      EXPECT_EQ(found, split(text));
      EXPECT_GT(blocks, 30);
    }
  }
}

TEST_F(PrepareTest, EveryMemberOfAGzipFileCounts) {
  const auto member = [&](const std::string& text) {
    write_gzip(in_ / "part.gz", text);
    return read_file(in_ / "part.gz");
  };
  const std::string first = member("one "), second = member("two");
  write_bytes(in_ / "a.txt.gz", first + second);
  EXPECT_EQ(prepared({in_ / "a.txt.gz"}), "one two|");
  write_bytes(in_ / "a.txt.gz", first + std::string(700, '\0'));  // a tape's padding
  EXPECT_EQ(prepared({in_ / "a.txt.gz"}), "one |");
  for (const size_t at : {size_t{0}, second.size() - 6}) {  // the header, the sum
    std::string damaged = second;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    write_bytes(in_ / "a.txt.gz", first + damaged);
    EXPECT_EQ(fault_of([&] { run({in_ / "a.txt.gz"}); }, "a.txt.gz: is damaged"), Fault::kData);
  }
}

TEST_F(PrepareTest, ALineOfJsonEndsWhereItEnds) {
  write_bytes(in_ / "a.jsonl", std::string("{\"text\": \"a\"}\0 {", 16) + "\n");
  expect_failure({in_ / "a.jsonl"}, "a.jsonl:1: is no JSON (a NUL byte)");
}

TEST_F(PrepareTest, AnInputIsNotWrittenOver) {
  write_bytes(out_ / "d.json", "text");
  EXPECT_EQ(fault_of([&] { run({out_ / "d.json"}); }, "write over its own input"), Fault::kUsage);
  EXPECT_EQ(read_file(out_ / "d.json"), "text");
}

TEST_F(PrepareTest, AnOlderDataSetSurvivesAFailure) {
  write_bytes(in_ / "a.txt", "old");
  write_bytes(in_ / "b.txt", "new");
  run({in_ / "a.txt"});
  fs::remove(out_ / "d.json");
  fs::create_directory(fs::path(out_ / "d.json"));  // the description cannot be written
  EXPECT_EQ(fault_of([&] { run({in_ / "b.txt"}); }, "d.json"), Fault::kUsage);
  fs::remove(out_ / "d.json");
  EXPECT_EQ(text_of(TokenFile::open(out_ / "d")), "old|");
}

}  // namespace
}  // namespace switchyard
