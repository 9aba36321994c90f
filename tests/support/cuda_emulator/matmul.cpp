// In place of cuBLAS: the CPU's matrix product, and handles that hold nothing.
#include "kernels/matmul.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/handles.h"

namespace switchyard {

CudaHandles::CudaHandles(CUstream_st* on)
    : stream(on), multiprocessors(2), compute_capability(80), shared_bytes(163 << 10) {}
CudaHandles::~CudaHandles() = default;

std::unique_ptr<CudaHandles> make_cuda_handles(CUstream_st* stream) {
  return std::make_unique<CudaHandles>(stream);
}

namespace kernels {

template <class T, class C>
void run(Cuda on, const Matmul<T, C>& args) {
  cuda_emulator::enqueue(on.stream, [=] { run(Cpu{}, args); });
}

template void run(Cuda, const Matmul<float, float>&);
template void run(Cuda, const Matmul<BF16, BF16>&);
template void run(Cuda, const Matmul<BF16, float>&);
template void run(Cuda, const Matmul<double, double>&);

}  // namespace kernels
}  // namespace switchyard
