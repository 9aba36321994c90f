#include "trainer/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "kernels/check.h"

namespace switchyard {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

void sync_folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const Descriptor fd(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) ::fsync(fd.get());  // some file systems cannot; the rename itself has happened
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) fail(Fault::kData, path, ": cannot be opened: ", std::strerror(errno));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) fail(Fault::kData, path, ": ", std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail(Fault::kData, path, ": is no regular file");
  size_ = status.st_size;
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) fail(Fault::kResource, path, ": cannot be mapped: ", std::strerror(errno));
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)), temporary_(concat(path_, ".tmp.", ::getpid())) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_write("cannot be created");
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::fail_write(const char* what) const {
  const int error = errno;
  const bool absent =
      error == ENOENT || error == ENOTDIR || error == EACCES || error == EISDIR || error == EROFS;
  fail(absent ? Fault::kUsage : Fault::kResource, path_, ": ", what, ": ", std::strerror(error));
}

void AtomicFile::write(const void* bytes, int64_t count) {
  const char* from = static_cast<const char*>(bytes);
  size_ += count;
  while (count > 0) {
    const auto room = static_cast<int64_t>(kBufferBytes - buffer_.size());
    const int64_t part = count < room ? count : room;
    buffer_.append(from, static_cast<size_t>(part));
    from += part;
    count -= part;
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void AtomicFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t wrote = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (wrote < 0 && errno != EINTR) fail_write("cannot be written");
    if (wrote > 0) done += static_cast<size_t>(wrote);
  }
  buffer_.clear();
}

void AtomicFile::sync() {
  flush();
  if (::fsync(fd_) != 0) fail_write("cannot be written");
}

void AtomicFile::commit() {
  sync();
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_write("cannot be renamed");
  committed_ = true;
  sync_folder_of(path_);
}

std::string read_text_file(const std::string& path) {
  const MappedFile file(path);
  return std::string(file.text());
}

void write_text_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void create_parent_folder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) fail(Fault::kUsage, folder.string(), ": cannot be created: ", error.message());
}

}  // namespace switchyard
