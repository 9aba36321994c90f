// The one place that launches kernels.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "kernels/cuda/check.h"

namespace switchyard::kernels {

// kernel<<<grid, block, shared, stream>>>(args...), with the launch's error checked. An
// empty grid launches nothing.
template <class... Params, class... Args>
void launch_kernel(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  // More than 48 KiB of static and dynamic memory together has to be asked for.
  constexpr size_t kSurelyGranted = 16 * 1024;
  if (shared > kSurelyGranted) {
    CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  }
  kernel<<<grid, block, shared, stream>>>(static_cast<Params>(std::forward<Args>(args))...);
  CUDA_CHECK(cudaGetLastError());
}

// The block's dynamic shared memory, aligned as the 128-byte swizzle of the tensor cores wants it.
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char buffer[];
  return buffer;
}

}  // namespace switchyard::kernels
