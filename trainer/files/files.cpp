#include "trainer/files/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "trainer/files/resource_error.h"

namespace switchyard {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr size_t kMaxShownName = 160;

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// The parents of `path` that make_directories() would have to make, innermost first.
std::vector<fs::path> missing_parents(const fs::path& path) {
  std::vector<fs::path> missing;
  std::error_code ignored;
  for (fs::path parent = path.parent_path(); !parent.empty() && !fs::exists(parent, ignored);
       parent = parent.parent_path())
    missing.push_back(parent);
  return missing;
}

fs::path hidden_beside(const fs::path& path, const char* ending) {
  return path.parent_path() / concat(".", path.filename().string(), ending);
}

}  // namespace

bool is_resource_error(int error) {
  return error == ENOSPC || error == EDQUOT || error == EFBIG || error == EIO || error == ENOMEM ||
         error == EMFILE || error == ENFILE || error == EAGAIN;
}

void fail_reading(const fs::path& path, int error) {
  fail(is_resource_error(error) ? Fault::kResource : Fault::kData, path.string(),
       ": cannot be read: ", std::strerror(error));
}

void fail_writing(const fs::path& path, int error) {
  fail(is_resource_error(error) ? Fault::kResource : Fault::kUsage, path.string(),
       ": cannot be written: ", std::strerror(error));
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string shown(std::string_view name) {
  std::string out = "\"";
  for (const char c : name.substr(0, kMaxShownName)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + (name.size() > kMaxShownName ? "...\"" : "\"");
}

bool is_plain_file_name(std::string_view name) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         std::none_of(name.begin(), name.end(), is_control);
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  if (file.get() < 0) fail_reading(path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_reading(path, errno);
  if (!S_ISREG(status.st_mode)) fail(Fault::kData, path.string(), ": is not a regular file");
  if (status.st_size == 0) return;
  const auto size = static_cast<size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) fail_reading(path, errno);
  bytes_ = {static_cast<const char*>(address), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<char*>(bytes_.data()), bytes_.size());
}

uint64_t xxh3_of(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string hex_of(uint64_t value) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(value));
  return digits;
}

Xxh3::Xxh3() : state_(XXH3_createState()) {
  if (state_ == nullptr) fail(Fault::kResource, "out of memory");
  XXH3_64bits_reset(state_);
}
Xxh3::~Xxh3() { XXH3_freeState(state_); }
void Xxh3::add(std::string_view bytes) { XXH3_64bits_update(state_, bytes.data(), bytes.size()); }
uint64_t Xxh3::value() const { return XXH3_64bits_digest(state_); }

OutputFile::OutputFile(const fs::path& path) : path_(path), temporary_(hidden_beside(path, ".tmp")) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (fs::exists(status) && !fs::is_regular_file(status)) temporary_ = path;
  buffer_.reserve(kBufferBytes);
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_writing(path_, errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (temporary_ != path_) ::unlink(temporary_.c_str());
}

void OutputFile::write(const void* bytes, size_t size) {
  const char* next = static_cast<const char*>(bytes);
  sum_.bytes += static_cast<int64_t>(size);
  while (size > 0) {
    const size_t part = std::min(size, kBufferBytes - buffer_.size());
    buffer_.append(next, part);
    next += part;
    size -= part;
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void OutputFile::flush() {
  hash_.add(buffer_);
  for (size_t done = 0; done < buffer_.size();) {
    const ssize_t n = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno != EINTR) fail_writing(path_, errno);
    if (n > 0) done += static_cast<size_t>(n);
  }
  buffer_.clear();
}

FileSum OutputFile::seal() {
  flush();
  // A device or a pipe cannot be synced (EINVAL).
  if (::fsync(descriptor_) != 0 && (temporary_ != path_ || errno != EINVAL)) fail_writing(path_, errno);
  sum_.xxh3 = hash_.value();
  return sum_;
}

FileSum OutputFile::commit() {
  seal();
  if (temporary_ != path_ && ::rename(temporary_.c_str(), path_.c_str()) != 0) fail_writing(path_, errno);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) fail_writing(path_, errno);
  return sum_;
}

FileSum write_file(const fs::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  return file.commit();
}

std::string read_file(const fs::path& path, int64_t limit) {
  const MappedFile file(path);
  if (static_cast<int64_t>(file.bytes().size()) > limit)
    fail(Fault::kData, path.string(), ": ", file.bytes().size(), " bytes, at most ", limit, " are allowed");
  return std::string(file.bytes());
}

fs::path without_trailing_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.filename().empty() ? normal.parent_path() : normal;
}

void make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail_writing(path, error.value());
  if (!fs::is_directory(path, error)) fail_writing(path, ENOTDIR);
}

void sync_directory(const fs::path& path) {
  const Descriptor directory(path.empty() ? fs::path(".") : path, O_RDONLY | O_DIRECTORY);
  // Some file systems cannot sync a directory (EINVAL); their renames are as durable as they get.
  if (directory.get() < 0 || (::fsync(directory.get()) != 0 && errno != EINVAL)) fail_writing(path, errno);
}

void rename_path(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_writing(to, errno);
}

namespace {

bool is_still_at(int descriptor, const fs::path& path) {
  struct stat open = {}, named = {};
  return ::fstat(descriptor, &open) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

// Makes `temporary` an empty directory of this process alone: the descriptor returned holds its lock. What is
// in it without a lock is of an attempt that was interrupted.
int take_directory(const fs::path& temporary, const fs::path& target) {
  std::error_code ignored;
  for (;;) {
    if (!fs::is_directory(fs::symlink_status(temporary, ignored))) fs::remove_all(temporary, ignored);
    make_directories(temporary);
    const int descriptor = ::open(temporary.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0 && errno == ENOENT) continue;  // committed or given up just now
    if (descriptor < 0) fail_writing(temporary, errno);
    const bool taken = ::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!taken && is_still_at(descriptor, temporary)) {
      for (const auto& entry : fs::directory_iterator(temporary)) fs::remove_all(entry.path(), ignored);
      return descriptor;
    }
    ::close(descriptor);
    if (taken) fail(Fault::kUsage, target.string(), ": another process is writing it");
  }
}

}  // namespace

AtomicDirectory::AtomicDirectory(const fs::path& path, bool first)
    : target_(without_trailing_slash(path)),
      temporary_(hidden_beside(target_, ".tmp")),
      made_parents_(missing_parents(temporary_)) {
  if (first)
    lock_ = take_directory(temporary_, target_);
  else
    make_directories(temporary_);
}

AtomicDirectory::~AtomicDirectory() {
  if (!keep_) {
    std::error_code ignored;
    fs::remove_all(temporary_, ignored);
    for (const fs::path& parent : made_parents_) ::rmdir(parent.c_str());
  }
  if (lock_ >= 0) ::close(lock_);
}

void AtomicDirectory::commit() {
  sync_directory(temporary_);
  const fs::path old = hidden_beside(target_, ".old.tmp");
  std::error_code error;
  fs::remove_all(old, error);
  if (fs::exists(fs::symlink_status(target_, error))) rename_path(target_, old);
  rename_path(temporary_, target_);
  keep_ = true;
  sync_directory(target_.parent_path());
  fs::remove_all(old, error);
}

}  // namespace switchyard
