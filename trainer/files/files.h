// Files that are read by mapping and written so that a reader sees the whole file or none of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/check.h"

struct XXH3_state_s;

namespace switchyard {

namespace fs = std::filesystem;

// Throws the Error of a failed system call: kResource where the machine is at fault (disk full, quota, file
// size limit, I/O error), kData where reading failed, kUsage where the path cannot be written.
[[noreturn]] void fail_reading(const fs::path& path, int error);
[[noreturn]] void fail_writing(const fs::path& path, int error);

// A name from a file, fit for a one-line message: quoted, control characters escaped, long ones cut.
std::string shown(std::string_view name);
// "a, b, c"
std::string join(const std::vector<std::string>& words);

// True for a name that stays in its directory and in its line: no '/', no control character, not "", "." or
// "..".
bool is_plain_file_name(std::string_view name);

// A regular file mapped read-only. Anything else at `path` is Error{kData}.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return bytes_; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  std::string_view bytes_;
};

struct FileSum {
  int64_t bytes = 0;
  uint64_t xxh3 = 0;  // XXH3-64 of the contents
  bool operator==(const FileSum&) const = default;
};

uint64_t xxh3_of(std::string_view bytes);

// The same, of bytes that come in parts.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;
  void add(std::string_view bytes);
  uint64_t value() const;

 private:
  XXH3_state_s* state_;  // of xxhash
};
std::string hex_of(uint64_t value);  // 16 digits

// Collects a file beside `path` as ".NAME.tmp"; commit() syncs it and gives it its name. Without commit()
// nothing is left.
class OutputFile {
 public:
  explicit OutputFile(const fs::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* bytes, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  int64_t size() const { return sum_.bytes; }
  FileSum seal();    // all is on the disk, under its temporary name
  FileSum commit();  // under its own

 private:
  void flush();

  fs::path path_;
  fs::path temporary_;  // path_ itself where that is a device or a pipe, which must stay one
  int descriptor_ = -1;
  std::string buffer_;
  Xxh3 hash_;
  FileSum sum_;
};

FileSum write_file(const fs::path& path, std::string_view text);

// The whole file as text; more than `limit` bytes is Error{kData}.
std::string read_file(const fs::path& path, int64_t limit = int64_t{1} << 30);

// "a/b/" -> "a/b", so that filename() is b.
fs::path without_trailing_slash(const fs::path& path);
void make_directories(const fs::path& path);
void sync_directory(const fs::path& path);
void rename_path(const fs::path& from, const fs::path& to);

// A directory that appears at `path` whole or not at all: files are put into path(), ".NAME.tmp"
// beside it, and commit() gives it its name. Without commit() the destructor removes it and the
// parents that it made. What an interrupted attempt left there is removed first, unless others write
// there already (`first` is false). A second `first` one at the same path, of any process, is
// Error{kUsage}, where the file system has locks.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(const fs::path& path, bool first = true);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const fs::path& path() const { return temporary_; }  // where to write
  void keep() { keep_ = true; }  // other processes write there too: a failure here leaves it
  void commit();                 // what was at the target before is replaced

 private:
  fs::path target_, temporary_;
  std::vector<fs::path> made_parents_;  // innermost first
  int lock_ = -1;                       // the temporary directory, open and locked
  bool keep_ = false;
};

}  // namespace switchyard
