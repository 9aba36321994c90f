// Memory of each device through one caching allocator: a fresh page costs 40 times a warm one, and a CUDA
// allocation synchronises. Blocks are cut from long segments and join again when freed (core/device/arena.h):
// experts' row counts change from step to step, and blocks kept by size would pile up. On CUDA a block
// returns to the pool of the stream it was allocated on, so reuse is ordered by that stream.
#pragma once

#include <cstdint>

#include "core/device/device.h"

namespace switchyard {

struct Block {
  void* data = nullptr;  // 256-byte aligned; on kMeta a fake address that must not be read
  int64_t bytes = 0;     // handed out: rounded up to the alignment
  Device device = Device::kCpu;
  void* pool = nullptr;  // CUDA: the stream, or a PrivatePool
};

// Throws Error{kResource} that says what was asked for and what is in use.
Block allocate(Device device, int64_t bytes);
void release(const Block& block) noexcept;

struct MemoryStats {
  int64_t in_use = 0;    // bytes handed out
  int64_t peak = 0;      // of in_use, since the last reset
  int64_t reserved = 0;  // bytes of the segments
  // The most that was held since the last reset: on a CPU pages written, on a GPU whole segments.
  int64_t peak_held = 0;
  int64_t system_allocations = 0;  // segments, ever
};
MemoryStats memory_stats(Device device);
void reset_peak(Device device);
// Gives segments without a block in use back to the system.
void release_cached(Device device);
// kMeta counts from now on as this device does. For plans.
void imitate(Device device);
Device imitated();

// A pool of CUDA memory that only work inside its Use gets blocks of, and that keeps its segments: what was
// enqueued with addresses of it may be enqueued again (core/device/recording.h). Blocks that were handed out
// are free again, for such work alone, when their tensors end.
class PrivatePool {
 public:
  PrivatePool() = default;
  ~PrivatePool();  // after the last block's release and the device's last use of it
  PrivatePool(const PrivatePool&) = delete;
  PrivatePool& operator=(const PrivatePool&) = delete;

  // The calling thread's CUDA blocks come from the pool while this lives.
  class Use {
   public:
    explicit Use(PrivatePool& pool);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
  };
};

// Copies on the calling thread's stream; returns when the destination (if host memory) may be read and the
// source reused. kMeta on either side: nothing happens.
void copy_bytes(void* dst, Device dst_device, const void* src, Device src_device, int64_t bytes);
// Like copy_bytes host -> device, but returns at once; the source is staged in pinned memory.
void upload(void* dst, Device dst_device, const void* src, int64_t bytes);
void fill_zero(void* dst, Device device, int64_t bytes);

}  // namespace switchyard
