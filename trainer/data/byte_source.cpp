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

// One or more gzip members, each checked by its own sum; zeros may follow the last.
class GzipFile final : public ByteSource {
 public:
  explicit GzipFile(const std::string& path) : path_(path), file_(path), input_(1 << 18, '\0') {
    if (::inflateInit2(&stream_, kGzip) != Z_OK) fail(Fault::kResource, "out of memory");
  }
  ~GzipFile() override { ::inflateEnd(&stream_); }
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  int64_t read(char* to, int64_t count) override {
    int64_t done = 0;
    while (done < count) {
      if (stream_.avail_in == 0 && !ended_) refill();
      if (!inside_member_ && !begin_member()) break;
      const auto room = static_cast<unsigned>(std::min<int64_t>(count - done, 1 << 30));
      stream_.next_out = reinterpret_cast<Bytef*>(to + done);
      stream_.avail_out = room;
      const int state = ::inflate(&stream_, Z_NO_FLUSH);
      done += room - stream_.avail_out;
      if (state == Z_STREAM_END) {
        inside_member_ = false;
        ::inflateReset(&stream_);
      } else if (state != Z_OK && state != Z_BUF_ERROR) {
        if (members_ == 1 && stream_.total_out == 0 && !has_magic_)
          fail(Fault::kData, path_, ": is no gzip file");
        fail(Fault::kData, path_, ": is damaged: ", stream_.msg != nullptr ? stream_.msg : "not inflatable");
      } else if (stream_.avail_in == 0 && ended_ && stream_.avail_out > 0) {
        fail(Fault::kData, path_, ": is damaged: unexpected end of file");
      }
    }
    return done;
  }
  int64_t position() const override { return file_.position(); }

 private:
  static constexpr int kGzip = 15 + 16;  // the largest window, gzip's header

  void refill() {
    const int64_t got = file_.read(input_.data(), static_cast<int64_t>(input_.size()));
    ended_ = got < static_cast<int64_t>(input_.size());
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
    stream_.avail_in = static_cast<unsigned>(got);
  }

  // Whether there is one more.
  bool begin_member() {
    while (members_ > 0 && stream_.avail_in > 0 && *stream_.next_in == 0) {
      ++stream_.next_in;
      if (--stream_.avail_in == 0 && !ended_) refill();
    }
    if (stream_.avail_in == 0) return false;
    has_magic_ = *stream_.next_in == 0x1f;
    ++members_;
    return inside_member_ = true;
  }

  std::string path_;
  PlainFile file_;
  std::string input_;
  z_stream stream_{};
  int64_t members_ = 0;
  bool ended_ = false, inside_member_ = false, has_magic_ = false;
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
