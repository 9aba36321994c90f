// What the allocator and the copies need from CUDA; cuda.cpp implements it, no_cuda.cpp says there is none.
#pragma once

#include <cstdint>

namespace switchyard::cuda_api {

void* allocate(int64_t bytes);  // null: out of memory
void release(void* data) noexcept;
void* current_stream();
// Host memory on either side: waits until the copy is done.
void copy(void* dst, bool dst_is_host, const void* src, bool src_is_host, int64_t bytes);
void upload(void* dst, const void* src, int64_t bytes);
void fill_zero(void* dst, int64_t bytes);
// What is enqueued in between becomes a graph instead of being executed.
void begin_recording();
void* end_recording();  // an executable graph
void abandon_recording() noexcept;
void replay(void* graph);
void release_graph(void* graph) noexcept;

}  // namespace switchyard::cuda_api
