// Where a kernel runs. Every op family has `run(Cpu, args)` and `run(Cuda, args)`; the tag picks one.
#pragma once

#ifdef __CUDACC__
#define SWITCHYARD_HOST_DEVICE __host__ __device__
#else
#define SWITCHYARD_HOST_DEVICE
#endif

struct CUstream_st;  // CUDA's stream, so that no host file needs CUDA's headers

namespace switchyard {

struct Cpu {};

// Library handles and workspace that belong to one stream (kernels/cuda/handles.h): cuBLAS repeats
// bit for bit only when every stream has its own workspace.
struct CudaHandles;

struct Cuda {
  CUstream_st* stream = nullptr;
  CudaHandles* handles = nullptr;
};

// Decided once, by CMake: whether the CUDA half of the program is linked.
#if defined(SWITCHYARD_HAS_CUDA) && SWITCHYARD_HAS_CUDA
inline constexpr bool kHasCuda = true;
#else
inline constexpr bool kHasCuda = false;
#endif

}  // namespace switchyard
