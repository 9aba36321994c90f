// Files read through a mapping and written so that a reader sees the whole new file or the old one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

// A whole file mapped for reading; an empty file is an empty view. Fails with Fault::kData where it cannot be
// read.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), static_cast<size_t>(size_)}; }

 private:
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

// Writes `path` under a temporary name beside it. commit() makes the bytes durable and gives them their name;
// without it the destructor leaves nothing behind. A failed write is Fault::kResource.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* bytes, int64_t count);
  void write(std::string_view text) { write(text.data(), static_cast<int64_t>(text.size())); }
  int64_t size() const { return size_; }  // bytes written so far
  void sync();                            // everything on disk, still under the temporary name
  void commit();

 private:
  void flush();
  [[noreturn]] void fail_write(const char* what) const;

  std::string path_, temporary_, buffer_;
  int fd_ = -1;
  int64_t size_ = 0;
  bool committed_ = false;
};

// The whole file as a string; Fault::kData where it cannot be read.
std::string read_text_file(const std::string& path);

// Writes a small file atomically.
void write_text_file(const std::string& path, std::string_view text);

// Creates the folder that `path` lies in, where it is missing.
void create_parent_folder(const std::string& path);

}  // namespace switchyard
