// ByteSource of text_files.h: plain, gzip and Zstandard files.
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/check.h"
#include "trainer/data/text_files.h"

namespace switchyard {
namespace {

class PlainFile final : public ByteSource {
 public:
  explicit PlainFile(const std::string& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail(Fault::kData, path, ": cannot be opened: ", std::strerror(errno));
  }
  ~PlainFile() override { ::close(fd_); }

  int64_t read(char* to, int64_t count) override {
    int64_t done = 0;
    while (done < count) {
      const ssize_t part = ::read(fd_, to + done, static_cast<size_t>(count - done));
      if (part < 0 && errno == EINTR) continue;
      if (part < 0) fail(Fault::kData, path_, ": cannot be read: ", std::strerror(errno));
      if (part == 0) break;
      done += part;
    }
    position_ += done;
    return done;
  }
  int64_t position() const override { return position_; }

 private:
  std::string path_;
  int fd_;
  int64_t position_ = 0;
};

class GzipFile final : public ByteSource {
 public:
  explicit GzipFile(const std::string& path) : path_(path), file_(::gzopen(path.c_str(), "rb")) {
    if (file_ == nullptr) fail(Fault::kData, path, ": cannot be opened: ", std::strerror(errno));
    ::gzbuffer(file_, 1 << 18);
  }
  ~GzipFile() override { ::gzclose(file_); }

  // zlib hands out plain bytes where there is no gzip header, and reports a missing end only by gzerror.
  int64_t read(char* to, int64_t count) override {
    int64_t done = 0;
    while (done < count) {
      const auto ask = static_cast<unsigned>(std::min<int64_t>(count - done, 1 << 30));
      const int part = ::gzread(file_, to + done, ask);
      int error = Z_OK;
      const char* message = ::gzerror(file_, &error);
      if (part < 0 || error != Z_OK) fail(Fault::kData, path_, ": is damaged: ", message);
      if (part > 0 && ::gzdirect(file_) != 0) fail(Fault::kData, path_, ": is no gzip file");
      if (part == 0) break;
      done += part;
    }
    return done;
  }
  int64_t position() const override { return ::gzoffset(file_); }

 private:
  std::string path_;
  gzFile file_;
};

class ZstdFile final : public ByteSource {
 public:
  explicit ZstdFile(const std::string& path)
      : path_(path), file_(path), stream_(::ZSTD_createDStream()), input_(::ZSTD_DStreamInSize(), '\0') {}
  ~ZstdFile() override { ::ZSTD_freeDStream(stream_); }

  int64_t read(char* to, int64_t count) override {
    ZSTD_outBuffer out{to, static_cast<size_t>(count), 0};
    while (out.pos < out.size) {
      if (in_.pos == in_.size && !ended_) refill();
      const size_t before = out.pos;
      const bool starved = in_.pos == in_.size;
      if (starved && !inside_frame_) break;
      const size_t state = ::ZSTD_decompressStream(stream_, &out, &in_);
      if (::ZSTD_isError(state)) fail(Fault::kData, path_, ": is damaged: ", ::ZSTD_getErrorName(state));
      inside_frame_ = state != 0;
      if (starved && inside_frame_ && out.pos == before)
        fail(Fault::kData, path_, ": is damaged: unexpected end");
    }
    return static_cast<int64_t>(out.pos);
  }
  int64_t position() const override { return file_.position(); }

 private:
  void refill() {
    const int64_t got = file_.read(input_.data(), static_cast<int64_t>(input_.size()));
    ended_ = got < static_cast<int64_t>(input_.size());
    in_ = {input_.data(), static_cast<size_t>(got), 0};
  }

  std::string path_;
  PlainFile file_;
  ZSTD_DStream* stream_;
  std::string input_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool ended_ = false, inside_frame_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_bytes(const std::string& path) {
  const std::string ending = std::filesystem::path(path).extension().string();
  if (ending == ".gz") return std::make_unique<GzipFile>(path);
  if (ending == ".zst") return std::make_unique<ZstdFile>(path);
  return std::make_unique<PlainFile>(path);
}

}  // namespace switchyard
