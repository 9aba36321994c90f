#include "core/device/memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "core/device/cuda_api.h"
#include "kernels/check.h"

namespace switchyard {

namespace {

constexpr int64_t kAlignment = 256;

// Steps of an eighth of a power of two: at most 12.5 % is lost, and few classes exist.
int64_t size_class(int64_t bytes) {
  if (bytes <= 8 * kAlignment) return std::max<int64_t>(1, (bytes + kAlignment - 1) / kAlignment) * kAlignment;
  const int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 8;
  return (bytes + step - 1) / step * step;
}

class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}

  Block allocate(int64_t bytes) {
    CHECK(bytes >= 0 && bytes < (int64_t{1} << 56), "bytes: ", bytes);
    void* pool = device_ == Device::kCuda ? cuda_api::current_stream() : nullptr;
    const int64_t rounded = size_class(bytes);
    std::lock_guard lock(mutex_);
    Block block = take_from_pool(pool, rounded);
    if (block.data == nullptr) block.data = take_from_system(rounded);
    stats_.in_use += block.bytes;
    stats_.peak = std::max(stats_.peak, stats_.in_use);
    return block;
  }

  void release(const Block& block) noexcept {
    std::lock_guard lock(mutex_);
    stats_.in_use -= block.bytes;
    free_[{block.pool, block.bytes}].push_back(block.data);
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak = stats_.in_use;
    stats_.peak_reserved = stats_.reserved;
  }

  void release_cached() {
    std::lock_guard lock(mutex_);
    drop_free_blocks();
  }

 private:
  // The smallest free block that fits and is at most twice as long: experts' row counts change from step to step, and
  // with exact fits alone every class they touch would keep blocks of its own.
  Block take_from_pool(void* pool, int64_t bytes) {
    Block block{nullptr, bytes, device_, pool};
    for (auto it = free_.lower_bound({pool, bytes}); it != free_.end(); ++it) {
      const auto& [owner, size] = it->first;
      if (owner != pool || size > 2 * bytes) break;
      if (it->second.empty()) continue;
      block.data = it->second.back();
      block.bytes = size;
      it->second.pop_back();
      break;
    }
    return block;
  }

  void* take_from_system(int64_t bytes) {
    void* data = system_allocate(bytes);
    if (data == nullptr) {
      drop_free_blocks();
      data = system_allocate(bytes);
    }
    if (data == nullptr) {
      fail(Fault::kResource, "out of ", name_of(device_), " memory: ", bytes >> 20, " MiB asked for, ",
           stats_.in_use >> 20, " MiB in use, ", stats_.reserved >> 20, " MiB reserved");
    }
    stats_.reserved += bytes;
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
    ++stats_.system_allocations;
    return data;
  }

  void* system_allocate(int64_t bytes) {
    switch (device_) {
      case Device::kCpu: return std::aligned_alloc(kAlignment, bytes);
      case Device::kCuda: return cuda_api::allocate(bytes);
      case Device::kMeta: return reinterpret_cast<void*>(next_fake_ += bytes);
    }
    return nullptr;
  }

  void drop_free_blocks() {
    for (auto& [key, blocks] : free_) {
      for (void* data : blocks) {
        if (device_ == Device::kCpu) std::free(data);
        if (device_ == Device::kCuda) cuda_api::release(data);
        stats_.reserved -= key.second;
      }
      blocks.clear();
    }
  }

  Device device_;
  std::mutex mutex_;
  std::map<std::pair<void*, int64_t>, std::vector<void*>> free_;
  MemoryStats stats_;
  int64_t next_fake_ = kAlignment;
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
