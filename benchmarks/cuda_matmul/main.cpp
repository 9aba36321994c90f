// bench_cuda_matmul: checks CUDA's products and attention, then times them. Exit code 1 if a check fails.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <random>

#include "benchmarks/cuda_matmul/check.h"
#include "benchmarks/cuda_matmul/timing.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/handles.h"

namespace switchyard::bench {
namespace {

int run_all() {
  cudaStream_t stream;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamDefault));  // in order with the checks' copies
  const auto handles = make_cuda_handles(stream);
  const Cuda exec{stream, handles.get()};
  const unsigned seed = std::random_device()();
  std::printf("seed %u, compute capability %d, %d multiprocessors\n", seed, handles->compute_capability,
              handles->multiprocessors);
  const int failures = check_attention(exec, seed) + check_products(exec, seed);
  std::printf("%d checks failed\n", failures);
  time_all(exec);
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace switchyard::bench

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // lines survive a time limit
  try {
    return switchyard::bench::run_all();
  } catch (const switchyard::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
