#include "trainer/data/token_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <filesystem>
#include <limits>
#include <type_traits>

#include "kernels/check.h"
#include "trainer/data/bare_tokens.h"

namespace switchyard {
namespace {

constexpr char kMagic[] = "MMIDIDX\0";  // nine bytes with the closing zero
constexpr int64_t kMagicBytes = 9;
constexpr int64_t kHeaderBytes = kMagicBytes + 8 + 1 + 8 + 8;
constexpr int64_t kScanBlock = 1 << 20;         // tokens
constexpr size_t kFingerprintBytes = 64 << 10;  // of either end of the tokens

template <class T>
T load(std::string_view bytes, int64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

std::string strip_ending(const std::string& prefix) {
  const fs::path path(prefix);
  if (path.extension() != ".bin" && path.extension() != ".idx") return prefix;
  if (fs::exists(prefix + ".idx")) return prefix;
  return (path.parent_path() / path.stem()).string();
}

// A .bin that is named itself and has no index.
bool is_bare(const std::string& path, const std::string& prefix) {
  return fs::path(path).extension() == ".bin" && !fs::exists(prefix + ".idx") && fs::exists(path);
}

// As unsigned, so that a negative id is larger than every vocabulary; the compiler vectorises this loop.
template <class T>
uint64_t largest(const T* tokens, int64_t count) {
  using Unsigned = std::make_unsigned_t<T>;
  Unsigned most = 0;
  for (int64_t i = 0; i < count; ++i) most = std::max(most, static_cast<Unsigned>(tokens[i]));
  // A narrow negative number would look like a legal id.
  if (std::is_signed_v<T> && most > static_cast<Unsigned>(std::numeric_limits<T>::max())) return UINT64_MAX;
  return most;
}

// What was looked at once need not stay in the process: a long file would look like
// the memory that training needs.
void forget(const void* data, int64_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / page * page;
  madvise(reinterpret_cast<void*>(begin), reinterpret_cast<uintptr_t>(data) + bytes - begin, MADV_DONTNEED);
}

}  // namespace

TokenFile TokenFile::open(const std::string& prefix) {
  TokenFile file;
  file.prefix_ = strip_ending(prefix);
  if (is_bare(prefix, file.prefix_)) {
    file.take_bare();
    return file;
  }
  if (!fs::exists(file.prefix_ + ".idx") && !fs::exists(file.prefix_ + ".bin"))
    fail(Fault::kData, file.prefix_, ".idx: cannot be read: there is no such token file; ",
         "`switchyard prepare TEXT --out ", file.prefix_, "` makes one");
  file.idx_file_ = std::make_unique<MappedFile>(file.prefix_ + ".idx");
  file.bin_file_ = std::make_unique<MappedFile>(file.prefix_ + ".bin");
  file.idx_ = file.idx_file_->bytes();
  file.bin_ = file.bin_file_->bytes();
  file.parse_index();
  file.read_sidecar();
  return file;
}

bool TokenFile::exists(const std::string& prefix) {
  const std::string stripped = strip_ending(prefix);
  return fs::exists(stripped + ".idx") || is_bare(prefix, stripped);
}

void TokenFile::take_bare() {
  bin_file_ = std::make_unique<MappedFile>(prefix_ + ".bin");
  const BareTokens bare = parse_bare_tokens(prefix_ + ".bin", bin_file_->bytes());
  format_ = bare.format;
  type_ = bare.type;
  bin_ = bare.bytes;
  tokens_ = std::ssize(bin_) / size_of(type_);
  sequences_ = documents_ = 1;
}

int64_t TokenFile::load_int64(int64_t at) const { return load<int64_t>(idx_, at); }

// Every size is compared by division: a hostile count must not overflow the product it would be part of.
void TokenFile::parse_index() {
  const std::string path = prefix_ + ".idx";
  if (std::ssize(idx_) < kHeaderBytes || std::memcmp(idx_.data(), kMagic, kMagicBytes) != 0) {
    fail(Fault::kData, path, ": is no Megatron index (byte 0)");
  }
  const auto version = load<uint64_t>(idx_, kMagicBytes);
  if (version != 1) fail(Fault::kData, path, ": version ", version, " at byte 9, 1 expected");
  const auto code = load<uint8_t>(idx_, 17);
  if (!is_megatron_code(code))
    fail(Fault::kData, path, ": token type ", int{code}, " at byte 17 is no integer type");
  type_ = static_cast<TokenType>(code);

  const auto sequences = load<uint64_t>(idx_, 18), bounds = load<uint64_t>(idx_, 26);
  const auto room = static_cast<uint64_t>(std::ssize(idx_) - kHeaderBytes);
  if (sequences > room / 12)
    fail(Fault::kData, path, ": ", sequences, " sequences at byte 18 do not fit the file");
  const uint64_t left = room - sequences * 12;
  if (bounds > left / 8) fail(Fault::kData, path, ": ", bounds, " documents at byte 26 do not fit the file");
  const uint64_t modes = left - bounds * 8;
  if (modes != 0 && modes != sequences) fail(Fault::kData, path, ": ", modes, " bytes too many at the end");
  if (bounds < 1) fail(Fault::kData, path, ": no document bounds (byte 26)");

  sequences_ = static_cast<int64_t>(sequences);
  documents_ = static_cast<int64_t>(bounds) - 1;
  offsets_at_ = kHeaderBytes + sequences_ * 4;
  bounds_at_ = offsets_at_ + sequences_ * 8;
  if (std::ssize(bin_) % size_of(type_) != 0) {
    fail(Fault::kData, prefix_, ".bin: ", std::ssize(bin_), " bytes are no whole number of ", name_of(type_),
         " tokens");
  }
  tokens_ = std::ssize(bin_) / size_of(type_);
  check_sequences(kHeaderBytes);
  check_documents();
}

// The sequences must tile the tokens in order: no hole, no overlap, nothing past the end.
void TokenFile::check_sequences(int64_t lengths_at) const {
  const int64_t width = size_of(type_);
  int64_t expected = 0;
  for (int64_t i = 0; i < sequences_; ++i) {
    const auto length = load<int32_t>(idx_, lengths_at + i * 4);
    const int64_t offset = load_int64(offsets_at_ + i * 8);
    if (length < 0) fail(Fault::kData, prefix_, ".idx: sequence ", i, " has length ", length);
    if (offset != expected) {
      fail(Fault::kData, prefix_, ".idx: sequence ", i, " starts at byte ", offset, ", ", expected,
           " expected");
    }
    if (length > (std::ssize(bin_) - expected) / width) {
      fail(Fault::kData, prefix_, ".idx: sequence ", i, " of ", length, " tokens at byte ", offset,
           " ends beyond the ", std::ssize(bin_), " bytes of the .bin");
    }
    expected += length * width;
  }
  if (expected != std::ssize(bin_)) {
    fail(Fault::kData, prefix_, ".bin: ", std::ssize(bin_), " bytes, but the index describes ", expected);
  }
}

void TokenFile::check_documents() const {
  int64_t previous = 0;
  for (int64_t d = 0; d <= documents_; ++d) {
    const int64_t bound = load_int64(bounds_at_ + d * 8);
    if (bound < previous || bound > sequences_ || (d == 0 && bound != 0)) {
      fail(Fault::kData, prefix_, ".idx: document bound ", d, " is ", bound, ", between ", previous, " and ",
           d == 0 ? 0 : sequences_, " expected");
    }
    previous = bound;
  }
  if (previous != sequences_) {
    fail(Fault::kData, prefix_, ".idx: the documents end at sequence ", previous, " of ", sequences_);
  }
}

void TokenFile::read_sidecar() {
  const std::string path = prefix_ + ".json";
  if (!fs::exists(path)) return;
  sidecar_ = parse_sidecar(path, read_file(path));
  if (!sidecar_) return;
  if (sidecar_->tokens != tokens_ || sidecar_->documents != documents_) {
    fail(Fault::kData, path, ": describes ", sidecar_->tokens, " tokens in ", sidecar_->documents,
         " documents, but the .idx has ", tokens_, " in ", documents_,
         "; remove it if it is another data set's");
  }
}

void TokenFile::read(int64_t begin, int64_t count, int32_t* out) const {
  CHECK(begin >= 0 && count >= 0 && tokens_ > 0);
  for (int64_t position = begin % tokens_; count > 0; position = 0) {
    const int64_t part = std::min(count, tokens_ - position);
    visit(type_, [&](auto token) {
      const auto* from = reinterpret_cast<const decltype(token)*>(bin_.data()) + position;
      for (int64_t i = 0; i < part; ++i) out[i] = static_cast<int32_t>(from[i]);
    });
    out += part;
    count -= part;
  }
}

int64_t TokenFile::document_begin(int64_t document) const {
  CHECK(document >= 0 && document <= documents_, document);
  if (format_ != TokenFormat::kMegatron) return document == 0 ? 0 : tokens_;
  const int64_t sequence = load_int64(bounds_at_ + document * 8);
  return sequence == sequences_ ? tokens_ : load_int64(offsets_at_ + sequence * 8) / size_of(type_);
}

int64_t TokenFile::document_of(int64_t position) const {
  CHECK(position >= 0 && position < tokens_, position);
  int64_t low = 0, high = documents_;  // document_begin(low) <= position < document_begin(high)
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (document_begin(middle) <= position ? low : high) = middle;
  }
  return low;
}

int64_t TokenFile::max_token() const {
  const uint64_t most = visit(type_, [&](auto token) {
    const auto* tokens = reinterpret_cast<const decltype(token)*>(bin_.data());
    uint64_t found = 0;
    for (int64_t begin = 0; begin < tokens_; begin += kScanBlock) {
      const int64_t count = std::min(kScanBlock, tokens_ - begin);
      found = std::max(found, largest(tokens + begin, count));
      forget(tokens + begin, count * size_of(type_));
    }
    return found;
  });
  return static_cast<int64_t>(std::min<uint64_t>(most, INT64_MAX));
}

void TokenFile::check_tokens(int64_t vocab_size) const {
  if (sidecar_) check_checksum(".idx", xxh3_of(idx_), sidecar_->idx_xxh3);
  Xxh3 sum;
  visit(type_, [&](auto token) {
    const auto* tokens = reinterpret_cast<const decltype(token)*>(bin_.data());
    const auto limit = static_cast<uint64_t>(vocab_size);
    for (int64_t begin = 0; begin < tokens_; begin += kScanBlock) {
      const int64_t count = std::min(kScanBlock, tokens_ - begin), bytes = count * size_of(type_);
      if (largest(tokens + begin, count) < limit) {
        sum.add({reinterpret_cast<const char*>(tokens + begin), static_cast<size_t>(bytes)});
        forget(tokens + begin, bytes);
        continue;
      }
      int64_t at = begin;
      while (largest(tokens + at, 1) < limit) ++at;
      fail(Fault::kData, prefix_, ".bin: token ", at, " (document ", document_of(at), ") is ",
           static_cast<int64_t>(tokens[at]), ", but the vocabulary has ", vocab_size, " tokens");
    }
  });
  if (sidecar_) check_checksum(".bin", sum.value(), sidecar_->bin_xxh3);
}

int64_t TokenFile::vocab_size() const {
  if (sidecar_) return sidecar_->vocab_size;
  const int64_t largest = max_token();
  if (largest >= INT32_MAX) check_tokens(INT32_MAX);  // says which
  return largest + 1;
}

void TokenFile::check_checksum(const char* ending, uint64_t found, uint64_t expected) const {
  if (found == expected) return;
  fail(Fault::kData, prefix_, ending, ": checksum ", hex_of(found), ", but ", prefix_, ".json says ",
       hex_of(expected), ": the file is damaged or from another data set");
}

uint64_t TokenFile::fingerprint() const {
  const size_t end = std::min(kFingerprintBytes, bin_.size());
  const std::string sums = concat(hex_of(xxh3_of(idx_)), bin_.size(), hex_of(xxh3_of(bin_.substr(0, end))),
                                  hex_of(xxh3_of(bin_.substr(bin_.size() - end))));
  return xxh3_of(sums);
}

}  // namespace switchyard
