#include "core/device/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "core/device/arena.h"
#include "core/device/cuda_api.h"
#include "kernels/check.h"

// AddressSanitizer's, null without it: a tensor's end and its death are then seen.
extern "C" void __asan_poison_memory_region(const volatile void*, size_t) __attribute__((weak));
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t) __attribute__((weak));

namespace switchyard {

namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kPage = 2 << 20;

// Long blocks of one size are kept a little apart. Elements of one index that lie a high power of two apart
// fall into the same rows of memory and sets of the shared cache (measured on a Zen 3: AdamW over four runs
// 256 MiB apart moves 7 GB/s, and 38 with this).
constexpr int64_t kLong = 16 << 20, kApart = 273 * kAlignment;

thread_local PrivatePool* t_private_pool = nullptr;

int64_t round_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

// What is taken from the system at a time. A CPU gives pages when they are written, so that a long segment
// costs nothing; a GPU gives it whole.
int64_t segment_bytes(Device device, int64_t reserved) {
  if (device == Device::kCuda) return std::clamp<int64_t>(reserved / 8, 8 * kPage, 256 * kPage);
  return std::clamp<int64_t>(reserved / 2, 128 * kPage, 1024 * kPage);
}

class CachingAllocator {
 public:
  explicit CachingAllocator(Device device)
      : device_(device), like_(device == Device::kMeta ? Device::kCpu : device) {}

  Block allocate(int64_t bytes) {
    CHECK(bytes >= 0 && bytes < (int64_t{1} << 56), "bytes: ", bytes);
    void* pool = device_ == Device::kCuda ? current_pool() : nullptr;
    const int64_t rounded = round_up(std::max<int64_t>(bytes, 1), kAlignment);
    const int64_t taken = rounded + apart(rounded) + (guarded() ? kAlignment : 0);
    std::lock_guard lock(mutex_);
    Pool& from = pools_[pool];
    from.keeps_segments = pool != nullptr && pool == t_private_pool;
    Arena& arena = from.arena;
    char* data = arena.take(taken);
    if (data == nullptr) {
      add_segment(arena, taken);
      data = arena.take(taken);
    }
    if (guarded()) __asan_unpoison_memory_region(data, bytes);
    stats_.in_use += rounded;
    stats_.peak = std::max(stats_.peak, stats_.in_use);
    stats_.peak_held = std::max(stats_.peak_held, held());
    return {data, rounded, device_, pool};
  }

  void release(const Block& block) noexcept {
    std::lock_guard lock(mutex_);
    stats_.in_use -= block.bytes;
    if (guarded()) __asan_poison_memory_region(block.data, block.bytes);
    pools_.find(block.pool)->second.arena.give(static_cast<char*>(block.data));
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak = stats_.in_use;
    stats_.peak_held = held();
  }

  void release_cached() {
    std::lock_guard lock(mutex_);
    drop_free_segments();
  }

  void drop(PrivatePool* pool) {
    std::lock_guard lock(mutex_);
    const auto found = pools_.find(pool);
    if (found == pools_.end()) return;
    found->second.keeps_segments = false;
    drop_free_segments(found->second.arena);
  }

  void imitate(Device device) {
    std::lock_guard lock(mutex_);
    like_ = device;
  }

  Device imitated() {
    std::lock_guard lock(mutex_);
    return like_;
  }

 private:
  struct Pool {
    Arena arena;
    bool keeps_segments = false;
  };

  static void* current_pool() {
    return t_private_pool != nullptr ? static_cast<void*>(t_private_pool) : cuda_api::current_stream();
  }

  bool guarded() const { return device_ == Device::kCpu && __asan_poison_memory_region != nullptr; }

  int64_t apart(int64_t bytes) const { return like_ == Device::kCpu && bytes >= kLong ? kApart : 0; }

  int64_t held() const {
    if (like_ == Device::kCuda) return stats_.reserved;
    int64_t touched = 0;
    for (const auto& [key, pool] : pools_) touched += round_up(pool.arena.touched(), kPage);
    return touched;
  }

  // Room for `bytes` and more; for no more where the system refuses that.
  void add_segment(Arena& arena, int64_t bytes) {
    int64_t whole = round_up(std::max(bytes, segment_bytes(like_, stats_.reserved)), kPage);
    char* data = system_allocate(whole);
    if (data == nullptr) {
      whole = round_up(bytes, kPage);
      data = system_allocate(whole);
    }
    if (data == nullptr) {
      drop_free_segments();
      data = system_allocate(whole);
    }
    if (data == nullptr) {
      fail(Fault::kResource, "out of ", name_of(device_), " memory: ", bytes >> 20, " MiB asked for, ",
           stats_.in_use >> 20, " MiB in use, ", stats_.reserved >> 20, " MiB reserved");
    }
    if (guarded()) __asan_poison_memory_region(data, whole);
    arena.add({data, whole});
    stats_.reserved += whole;
    ++stats_.system_allocations;
  }

  char* system_allocate(int64_t bytes) {
    switch (device_) {
      case Device::kCpu: {
        void* data =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (data == MAP_FAILED) return nullptr;
        // Large pages: matrix products walk many rows at once, and each row is a page of its own (measured: 3
        // to 6 % of a product's time). Where the system has none to give, small ones do.
        madvise(data, bytes, MADV_HUGEPAGE);
        return static_cast<char*>(data);
      }
      case Device::kCuda: return static_cast<char*>(cuda_api::allocate(bytes));
      case Device::kMeta: return reinterpret_cast<char*>((next_fake_ += bytes) - bytes);
    }
    return nullptr;
  }

  void drop_free_segments() {
    for (auto& [key, pool] : pools_) {
      if (!pool.keeps_segments) drop_free_segments(pool.arena);
    }
  }

  void drop_free_segments(Arena& arena) {
    for (const Arena::Segment& segment : arena.drop_free()) {
      if (guarded()) __asan_unpoison_memory_region(segment.data, segment.bytes);
      if (device_ == Device::kCpu) munmap(segment.data, segment.bytes);
      if (device_ == Device::kCuda) cuda_api::release(segment.data);
      stats_.reserved -= segment.bytes;
    }
  }

  Device device_;
  Device like_;  // whose ways memory is taken in
  std::mutex mutex_;
  std::map<void*, Pool> pools_;
  MemoryStats stats_;
  int64_t next_fake_ = kPage;
};

// One allocator a device for the whole process: memory is a property of the machine, not of a job. Never
// destroyed, since tensors of static duration may outlive any order of destruction.
CachingAllocator& allocator(Device device) {
  static auto& cpu = *new CachingAllocator(Device::kCpu);
  static auto& cuda = *new CachingAllocator(Device::kCuda);
  static auto& meta = *new CachingAllocator(Device::kMeta);
  return device == Device::kCpu ? cpu : device == Device::kCuda ? cuda : meta;
}

}  // namespace

Block allocate(Device device, int64_t bytes) { return allocator(device).allocate(bytes); }
void release(const Block& block) noexcept { allocator(block.device).release(block); }
MemoryStats memory_stats(Device device) { return allocator(device).stats(); }
void reset_peak(Device device) { allocator(device).reset_peak(); }
void release_cached(Device device) { allocator(device).release_cached(); }
void imitate(Device device) { allocator(Device::kMeta).imitate(device); }
Device imitated() { return allocator(Device::kMeta).imitated(); }

PrivatePool::~PrivatePool() { allocator(Device::kCuda).drop(this); }
PrivatePool::Use::Use(PrivatePool& pool) { t_private_pool = &pool; }
PrivatePool::Use::~Use() { t_private_pool = nullptr; }

void copy_bytes(void* dst, Device dst_device, const void* src, Device src_device, int64_t bytes) {
  if (bytes == 0 || dst_device == Device::kMeta || src_device == Device::kMeta) return;
  if (dst_device == Device::kCpu && src_device == Device::kCpu) {
    std::memcpy(dst, src, bytes);
  } else {
    cuda_api::copy(dst, dst_device == Device::kCpu, src, src_device == Device::kCpu, bytes);
  }
}

void upload(void* dst, Device dst_device, const void* src, int64_t bytes) {
  if (bytes == 0 || dst_device == Device::kMeta) return;
  if (dst_device == Device::kCpu) {
    std::memcpy(dst, src, bytes);
  } else {
    cuda_api::upload(dst, src, bytes);
  }
}

void fill_zero(void* dst, Device device, int64_t bytes) {
  if (bytes == 0 || device == Device::kMeta) return;
  if (device == Device::kCpu) {
    std::memset(dst, 0, bytes);
  } else {
    cuda_api::fill_zero(dst, bytes);
  }
}

}  // namespace switchyard
