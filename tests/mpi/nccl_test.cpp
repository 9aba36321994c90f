// The conformance suite on GPUs: host memory goes to the GPU and back around each collective. Two ranks may
// share one GPU (docs/collectives.md). NCCL does not add in rank order, which two ranks do not see.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "core/device/stream.h"
#include "kernels/cuda/check.h"
#include "parallel/comm/make.h"
#include "tests/mpi/world.h"
#include "tests/support/comm_conformance.h"

namespace switchyard {
namespace {

// Device memory of one call, filled from the host.
class OnDevice {
 public:
  OnDevice(const void* host, int64_t bytes) : bytes_(bytes) {
    CUDA_CHECK(cudaMalloc(&data_, std::max<int64_t>(bytes, 1)));
    if (host == nullptr || bytes == 0) return;
    CUDA_CHECK(cudaMemcpy(data_, host, bytes, cudaMemcpyHostToDevice));
    // A small copy may still be under way, and NCCL's stream does not wait for it.
    CUDA_CHECK(cudaDeviceSynchronize());
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  void* data() { return data_; }
  void copy_to(void* host) {
    synchronize_cuda();
    if (bytes_ > 0) CUDA_CHECK(cudaMemcpy(host, data_, bytes_, cudaMemcpyDeviceToHost));
  }

 private:
  void* data_ = nullptr;
  int64_t bytes_;
};

std::byte* at(void* data, int64_t offset) { return static_cast<std::byte*>(data) + offset; }

class StagedNccl final : public Communicator {
 public:
  explicit StagedNccl(Group nccl)
      : Communicator(nccl->rank(), nccl->size(), nccl->name()), nccl_(std::move(nccl)) {}

  Group split(int color, int key, std::string name) override {
    return std::make_shared<StagedNccl>(nccl_->split(color, key, std::move(name)));
  }
  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override {
    OnDevice x(data, count * size_of(dtype));
    nccl_->all_reduce(x.data(), count, dtype, op);
    x.copy_to(data);
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    const int64_t bytes = count * size_of(dtype);
    if (send == at(recv, rank() * bytes)) {
      OnDevice x(recv, size() * bytes);
      nccl_->all_gather(at(x.data(), rank() * bytes), x.data(), count, dtype);
      return x.copy_to(recv);
    }
    OnDevice x(send, bytes), y(nullptr, size() * bytes);
    nccl_->all_gather(x.data(), y.data(), count, dtype);
    y.copy_to(recv);
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override {
    const int64_t bytes = count * size_of(dtype);
    OnDevice x(send, size() * bytes);
    if (recv == at(const_cast<void*>(send), rank() * bytes)) {
      nccl_->reduce_scatter(x.data(), at(x.data(), rank() * bytes), count, dtype);
      return x.copy_to(const_cast<void*>(send));
    }
    OnDevice y(nullptr, bytes);
    nccl_->reduce_scatter(x.data(), y.data(), count, dtype);
    y.copy_to(recv);
  }
  void broadcast(void* data, int64_t count, DType dtype, int root) override {
    OnDevice x(data, count * size_of(dtype));
    nccl_->broadcast(x.data(), count, dtype, root);
    x.copy_to(data);
  }
  void all_to_all(const void* send, std::span<const int64_t> send_counts, void* recv,
                  std::span<const int64_t> recv_counts, DType dtype) override {
    OnDevice x(send, std::accumulate(send_counts.begin(), send_counts.end(), int64_t{0}) * size_of(dtype));
    OnDevice y(nullptr, std::accumulate(recv_counts.begin(), recv_counts.end(), int64_t{0}) * size_of(dtype));
    nccl_->all_to_all(x.data(), send_counts, y.data(), recv_counts, dtype);
    y.copy_to(recv);
  }
  void barrier() override { nccl_->barrier(); }
  void abort(const std::string& reason) noexcept override { nccl_->abort(reason); }

 private:
  Group nccl_;
};

struct Nccl {
  static std::vector<int> sizes() {
    const int size = mpi_world()->size();
    if (cuda_device_count() == 0 || size > 2) return {};
    use_cuda_device(mpi_world()->rank(), size);
    return {size};
  }
  static void run(int, const std::function<void(Group)>& body) {
    body(std::make_shared<StagedNccl>(make_nccl(mpi_world(), {.timeout_seconds = 60})));
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Nccl, CommConformance, Nccl);

}  // namespace
}  // namespace switchyard
