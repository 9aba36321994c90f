// A tokenised data set: Megatron's PREFIX.bin (tokens) and PREFIX.idx (documents), and our PREFIX.json beside
// them; or a .bin of llm.c or nanoGPT, which is one document without an index (bare_tokens.h).
//
//   .idx, little-endian and unaligned:  "MMIDIDX\0\0" | u64 version 1 | u8 type | u64 sequences | u64 bounds
//   |
//        i32 length[sequences] | i64 byte_offset[sequences] | i64 bound[bounds] | optional i8 mode[sequences]
//   bound[] starts with 0 and counts sequences: document d is the sequences bound[d] .. bound[d + 1] - 1.
//
// A reader trusts no number in these files before it is checked against their sizes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/data/sidecar.h"
#include "trainer/data/token_type.h"
#include "trainer/files/files.h"

namespace switchyard {

class TokenFile {
 public:
  // `prefix` may carry the ending .bin or .idx. Where it names a .bin without an .idx beside it, that file is
  // read alone, as llm.c's or nanoGPT's. Fault::kData where a file is missing or damaged.
  static TokenFile open(const std::string& prefix);
  static bool exists(const std::string& prefix);  // whether there is something to open

  const std::string& prefix() const { return prefix_; }
  TokenFormat format() const { return format_; }
  TokenType type() const { return type_; }
  int64_t tokens() const { return tokens_; }
  int64_t sequences() const { return sequences_; }
  int64_t documents() const { return documents_; }
  const std::optional<Sidecar>& sidecar() const { return sidecar_; }

  // Tokens begin .. begin + count - 1 of the data set as a ring: position p is token p mod tokens().
  void read(int64_t begin, int64_t count, int32_t* out) const;

  int64_t document_of(int64_t position) const;     // 0 <= position < tokens()
  int64_t document_begin(int64_t document) const;  // first position; document_begin(documents()) == tokens()

  // The largest id in the file; a negative id counts as larger than any. Reads it all.
  int64_t max_token() const;
  // Fault::kData with position and value where an id is not in [0, vocab_size), and where the files are not
  // those that the sidecar, if there is one, has the checksums of. Reads it all.
  void check_tokens(int64_t vocab_size) const;
  // The sidecar's, else the largest id + 1. May read it all.
  int64_t vocab_size() const;
  // Tells this data set from others without reading it all: the whole index, the size
  // and both ends of the tokens.
  uint64_t fingerprint() const;

 private:
  void take_bare();
  void parse_index();
  void check_sequences(int64_t lengths_at) const;
  void check_documents() const;
  void read_sidecar();
  void check_checksum(const char* ending, uint64_t found, uint64_t expected) const;
  int64_t load_int64(int64_t at) const;  // from the index

  std::string prefix_;
  std::unique_ptr<const MappedFile> bin_file_, idx_file_;
  std::string_view bin_, idx_;  // the tokens' and the index's bytes
  TokenFormat format_ = TokenFormat::kMegatron;
  TokenType type_ = TokenType::kU16;
  int64_t tokens_ = 0, sequences_ = 0, documents_ = 0;
  int64_t offsets_at_ = 0, bounds_at_ = 0;  // bytes into idx_
  std::optional<Sidecar> sidecar_;
};

// Writes the three files. They get their names in finish(); before it nothing is left behind on failure.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::string& prefix, TokenType type);

  void append(std::span<const int32_t> tokens);  // to the document under way
  void end_document();
  int64_t tokens() const { return tokens_; }
  int64_t documents() const { return static_cast<int64_t>(bounds_.size()) - 1; }
  // Fills in the sidecar's counts and checksums, and returns it. `tokenizer_json`: to lie beside it, and to
  // be named by it; empty: none.
  Sidecar finish(Sidecar sidecar, const std::string& tokenizer_json = "");

 private:
  std::string index() const;  // the bytes of the .idx

  std::string prefix_;
  TokenType type_;
  OutputFile bin_;
  int64_t tokens_ = 0, document_tokens_ = 0;
  std::vector<int32_t> lengths_;
  std::vector<int64_t> bounds_{0};
};

}  // namespace switchyard
