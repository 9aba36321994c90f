#include "trainer/data/text_files.h"

#include <algorithm>
#include <filesystem>

#include "kernels/check.h"
#include "trainer/files/files.h"

namespace switchyard {
namespace {

// The ending that says what the text is: ".txt" of "a.txt.gz".
std::string text_ending(const fs::path& path) {
  const std::string ending = path.extension().string();
  return ending == ".gz" || ending == ".zst" ? path.stem().extension().string() : ending;
}

bool is_text_name(const fs::path& path) {
  const std::string ending = text_ending(path);
  return ending == ".txt" || ending == ".md" || ending == ".jsonl";
}

void add_folder(const std::string& folder, std::vector<std::string>& files) {
  std::vector<std::string> found;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && is_text_name(entry.path())) found.push_back(entry.path().string());
  }
  if (found.empty()) fail(Fault::kData, folder, ": has no .txt, .md or .jsonl file (plain, .gz or .zst)");
  std::sort(found.begin(), found.end());
  files.insert(files.end(), found.begin(), found.end());
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_ascii_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// White space beyond ASCII, in UTF-8: U+0085, U+00A0, U+1680, U+2000..200A, U+2028,
// U+2029, U+202F, U+205F, U+3000.
bool is_wide_space(std::string_view character) {
  if (character == "\xc2\x85" || character == "\xc2\xa0") return true;
  if (character == "\xe1\x9a\x80" || character == "\xe2\x81\x9f" || character == "\xe3\x80\x80") return true;
  if (character.size() != 3 || !character.starts_with("\xe2\x80")) return false;
  const auto last = static_cast<unsigned char>(character[2]);
  return last <= 0x8a || last == 0xa8 || last == 0xa9 || last == 0xaf;
}

bool begins_with_space(std::string_view text) {
  return text.empty() || is_space(text[0]) || is_wide_space(text.substr(0, 2)) ||
         is_wide_space(text.substr(0, 3));
}

bool ends_with_space(std::string_view text) {
  const auto last = [&](size_t n) { return text.substr(text.size() - std::min(n, text.size())); };
  return text.empty() || is_space(text.back()) || is_wide_space(last(2)) || is_wide_space(last(3));
}

}  // namespace

std::vector<std::string> find_text_files(const std::vector<std::string>& inputs) {
  std::vector<std::string> files;
  for (const std::string& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (!fs::exists(status)) fail(Fault::kData, input, ": no such file or folder");
    if (!fs::is_regular_file(status) && !fs::is_directory(status))
      fail(Fault::kData, input, ": is a pipe or a device; texts are read from files, some of them twice");
    try {
      fs::is_directory(status) ? add_folder(input, files) : files.push_back(input);
    } catch (const fs::filesystem_error& failure) {
      fail(Fault::kData, input, ": cannot be listed: ", failure.code().message());
    }
  }
  return files;
}

BlockReader::BlockReader(const std::string& path, int64_t block_bytes)
    : source_(open_bytes(path)), block_bytes_(block_bytes), json_lines_(text_ending(path) == ".jsonl") {}

// The first place to cut at or after `from`; npos where the buffer has none. Both parts must have the tokens
// that they have together. No tokenizer's piece crosses the end of a line between two characters that are no
// white space, nor the place between an ASCII letter or digit and the end of its line, whatever white space
// follows that.
size_t BlockReader::find_cut(size_t from) const {
  const std::string_view all = buffer_;
  for (size_t at = all.find('\n', from); at != all.npos; at = all.find('\n', at + 1)) {
    if (json_lines_) return at + 1;
    const size_t end = at > 0 && all[at - 1] == '\r' ? at - 1 : at;  // of the line
    if (end > 0 && is_ascii_word(all[end - 1])) return end;
    // Three bytes tell whether the next character is white space.
    if (at + 3 < all.size() && !ends_with_space(all.substr(0, at)) && !begins_with_space(all.substr(at + 1)))
      return at + 1;
  }
  return std::string::npos;
}

bool BlockReader::next(TextBlock& block) {
  if (done_) return false;
  size_t cut = std::string::npos;
  for (size_t searched = static_cast<size_t>(block_bytes_);;) {
    cut = find_cut(searched);
    if (cut != std::string::npos || source_ended_) break;
    const size_t before = buffer_.size();
    // The character after a line end counts.
    searched = std::max(searched, before - std::min<size_t>(before, 1));
    buffer_.resize(before + static_cast<size_t>(block_bytes_) + 1);
    const int64_t got = source_->read(buffer_.data() + before, block_bytes_ + 1);
    buffer_.resize(before + static_cast<size_t>(got));
    source_ended_ = got < block_bytes_ + 1;
  }
  block.text = buffer_.substr(0, cut);
  block.first_line = line_;
  block.json_lines = json_lines_;
  buffer_.erase(0, cut);
  done_ = source_ended_ && buffer_.empty();
  block.ends_document = done_;
  line_ += std::count(block.text.begin(), block.text.end(), '\n');
  return true;
}

}  // namespace switchyard
