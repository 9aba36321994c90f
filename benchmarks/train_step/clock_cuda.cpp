#include <cuda_runtime_api.h>

#include "benchmarks/train_step/profile.h"
#include "core/device/stream.h"
#include "kernels/cuda/check.h"

namespace switchyard::bench {

namespace {

class CudaClock : public Clock {
 public:
  ~CudaClock() override {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  void mark() override {
    cudaEvent_t event = nullptr;
    CUDA_CHECK(cudaEventCreate(&event));
    events_.push_back(event);
    CUDA_CHECK(cudaEventRecord(event, current_cuda_stream()));
  }

  std::vector<double> intervals() override {
    synchronize_cuda();
    std::vector<double> seconds;
    for (size_t i = 1; i < events_.size(); ++i) {
      float milliseconds = 0;
      CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events_[i - 1], events_[i]));
      seconds.push_back(milliseconds * 1e-3);
    }
    return seconds;
  }

 private:
  std::vector<cudaEvent_t> events_;
};

}  // namespace

std::unique_ptr<Clock> cuda_clock() { return std::make_unique<CudaClock>(); }

}  // namespace switchyard::bench
