#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>

#include "core/device/cuda_api.h"
#include "core/device/stream.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/handles.h"

namespace switchyard {

namespace {

std::atomic<long> g_host_syncs = 0;

// Pinned memory for host-to-device copies that do not wait: a ring of slots, each guarded by an event.
class StagingRing {
 public:
  void upload(void* dst, const void* src, int64_t bytes, cudaStream_t stream) {
    Slot& slot = slots_[next_++ % slots_.size()];
    if (slot.event == nullptr) CUDA_CHECK(cudaEventCreateWithFlags(&slot.event, cudaEventDisableTiming));
    // Long done, unless the ring went round within a few copies.
    CUDA_CHECK(cudaEventSynchronize(slot.event));
    if (slot.bytes < bytes) grow(slot, bytes);
    std::memcpy(slot.data, src, bytes);
    CUDA_CHECK(cudaMemcpyAsync(dst, slot.data, bytes, cudaMemcpyHostToDevice, stream));
    CUDA_CHECK(cudaEventRecord(slot.event, stream));
  }

  ~StagingRing() {
    for (Slot& slot : slots_) {
      if (slot.data != nullptr) cudaFreeHost(slot.data);
      if (slot.event != nullptr) cudaEventDestroy(slot.event);
    }
  }

 private:
  struct Slot {
    void* data = nullptr;
    int64_t bytes = 0;
    cudaEvent_t event = nullptr;
  };

  static void grow(Slot& slot, int64_t bytes) {
    if (slot.data != nullptr) CUDA_CHECK(cudaFreeHost(slot.data));
    slot = {nullptr, 0, slot.event};
    const int64_t size = std::max<int64_t>(2 * bytes, 64 << 10);
    CUDA_CHECK(cudaMallocHost(&slot.data, size));
    slot.bytes = size;
  }

  std::array<Slot, 16> slots_;
  size_t next_ = 0;
};

// What a thread needs to work on the GPU. Made on first use, on the device that use_cuda_device() chose.
struct ThreadContext {
  cudaStream_t stream = nullptr;
  std::unique_ptr<CudaHandles> handles;
  StagingRing staging;
  bool recording = false;

  ThreadContext() {
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    handles = make_cuda_handles(stream);
  }
  ~ThreadContext() {
    handles.reset();
    cudaStreamDestroy(stream);
  }
  ThreadContext(const ThreadContext&) = delete;
  ThreadContext& operator=(const ThreadContext&) = delete;
};

ThreadContext& context() {
  thread_local ThreadContext context;
  return context;
}

}  // namespace

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    (void)cudaGetLastError();  // no driver, no device: not an error of ours
    return 0;
  }
  return count;
}

void use_cuda_device(int local_rank, int local_size) {
  const int count = cuda_device_count();
  if (count == 0) fail(Fault::kUsage, "device: CUDA needs a GPU, and none was found");
  if (count > 1 && local_size > count) {
    fail(Fault::kUsage, "device: CUDA with ", local_size, " ranks on a node with ", count, " GPUs");
  }
  CUDA_CHECK(cudaSetDevice(local_rank % count));
}

Cuda current_cuda() { return Cuda{context().stream, context().handles.get()}; }
CUstream_st* current_cuda_stream() { return context().stream; }

void synchronize_cuda() {
  CHECK(!context().recording, "recorded work waits for the device");
  CUDA_CHECK(cudaStreamSynchronize(context().stream));
  ++g_host_syncs;
}

long host_syncs() { return g_host_syncs; }

namespace cuda_api {

void* allocate(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return nullptr;
  }
  CUDA_CHECK(status);
  return data;
}

void release(void* data) noexcept { cudaFree(data); }
void* current_stream() { return context().stream; }

void copy(void* dst, bool dst_is_host, const void* src, bool src_is_host, int64_t bytes) {
  CHECK(!context().recording || !(dst_is_host || src_is_host), "recorded work copies from or to the host");
  CUDA_CHECK(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, context().stream));
  if (dst_is_host || src_is_host) synchronize_cuda();
}

void upload(void* dst, const void* src, int64_t bytes) {
  CHECK(!context().recording, "recorded work brings host data");
  context().staging.upload(dst, src, bytes, context().stream);
}

void fill_zero(void* dst, int64_t bytes) { CUDA_CHECK(cudaMemsetAsync(dst, 0, bytes, context().stream)); }

// Relaxed: the allocator may have to get memory meanwhile.
void begin_recording() {
  CUDA_CHECK(cudaStreamBeginCapture(context().stream, cudaStreamCaptureModeRelaxed));
  context().recording = true;
}

void* end_recording() {
  context().recording = false;
  cudaGraph_t graph = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(context().stream, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  CUDA_CHECK(status);
  return executable;
}

void abandon_recording() noexcept {
  context().recording = false;
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(context().stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
  (void)cudaGetLastError();  // the work's own error is the one to tell
}

void replay(void* graph) {
  CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), context().stream));
}

void release_graph(void* graph) noexcept { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

}  // namespace cuda_api

}  // namespace switchyard
