// Text to prepare, read in blocks: .txt, .md and .jsonl files, plain, .gz or .zst.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace switchyard {

// The files among `inputs` as named, and in folders every file whose ending is one of the above, below them
// as well, sorted by name. Fault::kData where an input does not exist or a folder has no such file.
std::vector<std::string> find_text_files(const std::vector<std::string>& inputs);

// The decompressed bytes of a file. Fault::kData where it cannot be read or is damaged.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual int64_t read(char* to, int64_t count) = 0;  // fewer than `count` only at the end
  virtual int64_t position() const = 0;               // in the file as it is on disk
};
std::unique_ptr<ByteSource> open_bytes(const std::string& path);

// A part of a file that is tokenised on its own.
struct TextBlock {
  std::string text;
  int64_t first_line = 1;      // of the file, for errors
  bool json_lines = false;     // every line is a document: an object whose "text" is it
  bool ends_document = false;  // of a plain file: its last block
};

// Cuts a file into blocks of about a megabyte: JSON lines after a line; plain text where a line of text
// follows another, so that no run of spaces and no word is cut, and a tokeniser finds the same words as in
// the whole.
class BlockReader {
 public:
  explicit BlockReader(const std::string& path, int64_t block_bytes = 1 << 20);
  bool next(TextBlock& block);  // false at the end
  int64_t position() const { return source_->position(); }

 private:
  size_t find_cut(size_t from) const;

  std::unique_ptr<ByteSource> source_;
  int64_t block_bytes_;
  bool json_lines_;
  std::string buffer_;
  int64_t line_ = 1;
  bool source_ended_ = false, done_ = false;
};

}  // namespace switchyard
