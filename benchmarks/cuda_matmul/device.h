// Device memory with a host's vector at either end.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/dtype.h"

namespace switchyard::bench {

template <class T>
class DeviceArray {
 public:
  // Poisoned: every byte 0xff, which is NaN in every floating-point type.
  explicit DeviceArray(int64_t n) : n_(n) {
    CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_), n * sizeof(T) + 16));
    CUDA_CHECK(cudaMemset(data_, 0xff, n * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(static_cast<int64_t>(host.size())) {
    CUDA_CHECK(cudaMemcpy(data_, host.data(), n_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return data_; }
  int64_t size() const { return n_; }
  std::vector<T> host() const {
    std::vector<T> copy(n_);
    CUDA_CHECK(cudaDeviceSynchronize());
    CUDA_CHECK(cudaMemcpy(copy.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost));
    return copy;
  }

 private:
  T* data_ = nullptr;
  int64_t n_ = 0;
};

template <class T>
double to_double(T x) {
  return static_cast<double>(static_cast<Acc<T>>(x));
}

template <class T>
std::vector<T> random_vector(int64_t n, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  std::vector<T> x(n);
  for (T& e : x) e = T(normal(generator));
  return x;
}

}  // namespace switchyard::bench
