// Stands before kernels/cuda/launch.cuh on the include path: a launch runs the grid
// to its end, or is captured.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <tuple>

#include "kernels/cuda/check.h"

namespace cuda_emulator {

// Calls `thread` once for each thread of the grid.
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

}  // namespace cuda_emulator

namespace switchyard::kernels {

inline unsigned char* dynamic_shared() { return cuda_emulator::dynamic_shared(); }

template <class... Params, class... Args>
void launch_kernel(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cuda_emulator::enqueue(stream, [=, values = std::tuple<Params...>(static_cast<Params>(args)...)] {
    cuda_emulator::run_grid(grid, block, shared, [&] { std::apply(kernel, values); });
  });
}

}  // namespace switchyard::kernels
