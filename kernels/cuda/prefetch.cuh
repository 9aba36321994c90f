#pragma once

namespace switchyard::kernels {

// Starts to bring `bytes` (a multiple of 16) into the L2 cache, where the device can. By the copy engine,
// which takes its requests one after the other: for few long rows.
__device__ inline void prefetch_row([[maybe_unused]] const void* global, [[maybe_unused]] int bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
#endif
}

// The 128 bytes around an address.
constexpr int kCacheLine = 128;
__device__ inline void prefetch_line([[maybe_unused]] const void* global) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
#endif
}

}  // namespace switchyard::kernels
