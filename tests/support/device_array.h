// The same test on both executors: a Side makes arrays in its memory and runs there.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "kernels/cuda/check.h"
#include "kernels/dtype.h"

namespace switchyard::kernels {

// `shift` elements before the data lie unused, so that addresses of any alignment can be tried.
template <class T>
class DeviceArray {
 public:
  DeviceArray(const std::vector<T>& values, int64_t shift) : size_(values.size()), shift_(shift) {
    void* memory = nullptr;
    CUDA_CHECK(cudaMalloc(&memory, (size_ + static_cast<size_t>(shift)) * sizeof(T)));
    memory_ = static_cast<T*>(memory);
    if (size_) CUDA_CHECK(cudaMemcpy(data(), values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~DeviceArray() { cudaFree(memory_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return memory_ ? memory_ + shift_ : nullptr; }
  std::vector<T> values() const {
    std::vector<T> out(size_);
    if (size_) CUDA_CHECK(cudaMemcpy(out.data(), data(), size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  T* memory_ = nullptr;
  size_t size_;
  int64_t shift_;
};

template <class T>
class HostArray {
 public:
  HostArray(const std::vector<T>& values, int64_t) : values_(values) {}
  T* data() { return values_.data(); }
  const std::vector<T>& values() const { return values_; }

 private:
  std::vector<T> values_;
};

struct CpuSide {
  static Cpu on() { return {}; }
  template <class T>
  using Array = HostArray<T>;
};

struct CudaSide {
  static Cuda on() { return {}; }
  template <class T>
  using Array = DeviceArray<T>;
};

}  // namespace switchyard::kernels
