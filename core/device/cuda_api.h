// What the allocator and the copies need from CUDA; cuda.cpp implements it, no_cuda.cpp says there is none.
#pragma once

#include <cstdint>

namespace switchyard::cuda_api {

void* allocate(int64_t bytes);          // null: out of memory
void release(void* data) noexcept;
void* current_stream();
void copy(void* dst, const void* src, int64_t bytes, bool to_host);
void upload(void* dst, const void* src, int64_t bytes);
void fill_zero(void* dst, int64_t bytes);

}  // namespace switchyard::cuda_api
