#include "core/device/cuda_api.h"
#include "core/device/stream.h"
#include "kernels/check.h"

namespace switchyard {

namespace {
[[noreturn]] void no_cuda() {
  fail(Fault::kUsage, "device: CUDA needs a GPU, and this program was built without CUDA");
}
}  // namespace

void use_cuda_device(int, int) { no_cuda(); }
int cuda_device_count() { return 0; }
Cuda current_cuda() { no_cuda(); }
CUstream_st* current_cuda_stream() { no_cuda(); }
void synchronize_cuda() { no_cuda(); }
long host_syncs() { return 0; }

namespace cuda_api {
void* allocate(int64_t) { no_cuda(); }
void release(void*) noexcept {}
void* current_stream() { no_cuda(); }
void copy(void*, bool, const void*, bool, int64_t) { no_cuda(); }
void upload(void*, const void*, int64_t) { no_cuda(); }
void fill_zero(void*, int64_t) { no_cuda(); }
void begin_recording() { no_cuda(); }
void* end_recording() { no_cuda(); }
void abandon_recording() noexcept {}
void replay(void*) { no_cuda(); }
void release_graph(void*) noexcept {}
}  // namespace cuda_api

}  // namespace switchyard
