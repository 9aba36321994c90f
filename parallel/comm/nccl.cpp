// The twin of a host group on GPUs. Calls are enqueued on the calling thread's CUDA stream and return. NCCL
// adds in an order of its own: the same in every run on the same machines, but not the ranks' order. Its
// calls do not block, so that a peer missing at creation or at a first connection is noticed at the deadline;
// a kernel that waits for a peer on the GPU has none, so hosts meet before they wait for it (Axis::meet).
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <thread>
#include <vector>

#include "core/device/stream.h"
#include "kernels/cuda/check.h"
#include "parallel/comm/make.h"

namespace switchyard {
namespace {

using Time = std::chrono::steady_clock::time_point;

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::kF32: return ncclFloat32;
    case DType::kBF16: return ncclBfloat16;
    case DType::kF64: return ncclFloat64;
    case DType::kI32: return ncclInt32;
    case DType::kI64: return ncclInt64;
    case DType::kU8: return ncclUint8;
  }
  fail(Fault::kInternal, "no type of NCCL for ", name_of(dtype));
}

ncclRedOp_t nccl_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum: return ncclSum;
    case ReduceOp::kMax: return ncclMax;
    case ReduceOp::kMin: return ncclMin;
  }
  fail(Fault::kInternal, "no such reduction");
}

// NCCL refuses two ranks of one host on one GPU. Ranks that share one take each other for other
// hosts and talk over sockets: right, but slow. It must be said before the first call of NCCL,
// and does not help thread-ranks.
void allow_shared_gpu(Communicator& host) {
  int device = 0;
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  using Uuid = std::array<char, 16>;
  std::vector<Uuid> all(host.size());
  Uuid& mine = all[host.rank()];
  std::copy_n(properties.uuid.bytes, mine.size(), mine.begin());
  host.all_gather(mine.data(), all.data(), std::ssize(mine), DType::kU8);
  if (std::count(all.begin(), all.end(), mine) == 1) return;
  setenv("NCCL_HOSTID", concat("switchyard-", getpid()).c_str(), 0);
  setenv("NCCL_NET", "Socket", 0);
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(Group host, const CommOptions& options)
      : Communicator(host->rank(), host->size(), host->name()), host_(std::move(host)), options_(options) {
    ncclUniqueId id{};
    if (rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    host_->broadcast(&id, sizeof(id), DType::kU8, 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    settle(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config), "ncclCommInitRankConfig", 0);
    try_out();
  }
  ~NcclCommunicator() override {
    if (comm_ == nullptr) return;
    // After an error this rank's peers may be in a kernel that waits for it, and every way to take a
    // communicator down waits for them: it is left to the end of the process, so that the error is told.
    if (std::uncaught_exceptions() > 0) return;
    if (failed_ || cudaDeviceSynchronize() != cudaSuccess)
      ncclCommAbort(comm_);
    else
      ncclCommDestroy(comm_);
  }

  Group split(int color, int key, std::string name) override {
    return make_nccl(host_->split(color, key, std::move(name)), options_);
  }
  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override {
    settle(ncclAllReduce(data, data, count, nccl_type(dtype), nccl_op(op), comm(), current_cuda_stream()),
           "all_reduce", count * size_of(dtype));
  }
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override {
    settle(ncclAllGather(send, recv, count, nccl_type(dtype), comm(), current_cuda_stream()), "all_gather",
           count * size_of(dtype));
  }
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override {
    settle(ncclReduceScatter(send, recv, count, nccl_type(dtype), ncclSum, comm(), current_cuda_stream()),
           "reduce_scatter", count * size_of(dtype));
  }
  void broadcast(void* data, int64_t count, DType dtype, int root) override {
    settle(ncclBroadcast(data, data, count, nccl_type(dtype), root, comm(), current_cuda_stream()),
           "broadcast", count * size_of(dtype));
  }
  void all_to_all(const void* send, std::span<const int64_t> send_counts, void* recv,
                  std::span<const int64_t> recv_counts, DType dtype) override;
  // Of the hosts: the GPUs' work is ordered by their streams.
  void barrier() override { host_->barrier(); }
  bool on_device() const override { return true; }
  void abort(const std::string& reason) noexcept override {
    host_->abort(reason);
    if (comm_ != nullptr) ncclCommAbort(comm_);
    comm_ = nullptr;
  }

 private:
  ncclComm_t comm() const {
    if (comm_ == nullptr || failed_)
      fail(Fault::kPeer, "rank ", rank(), " uses group ", name(), " after it failed");
    return comm_;
  }
  // "in group ep (2 ranks), all_reduce, layer 3, 4096 bytes"
  std::string where(const char* operation, int64_t bytes) const {
    const std::string& label = CommLabel::current();
    return concat("in group ", name(), " (", size(), " ranks), ", operation, label.empty() ? "" : ", ", label,
                  ", ", bytes, " bytes");
  }
  void check(ncclResult_t result, const char* operation, int64_t bytes = 0) {
    if (result == ncclSuccess) return;
    failed_ = true;
    fail(Fault::kPeer, "rank ", rank(), " ", where(operation, bytes), ": NCCL: ", ncclGetErrorString(result),
         " ", ncclGetLastError(comm_));
  }
  void check_time(Time start, const char* operation, int64_t bytes) {
    if (std::chrono::steady_clock::now() - start < std::chrono::duration<double>(options_.timeout_seconds))
      return;
    failed_ = true;
    fail(Fault::kPeer, "rank ", rank(), " waited ", options_.timeout_seconds, " s ", where(operation, bytes),
         ": a peer hangs or is gone");
  }
  // Until NCCL has taken the call.
  void settle(ncclResult_t result, const char* operation, int64_t bytes);
  // A first collective of each kind of connection, waited for: what is wrong with
  // the network shows at start-up.
  void try_out();

  Group host_;
  CommOptions options_;
  ncclComm_t comm_ = nullptr;
  bool failed_ = false;
};

void NcclCommunicator::settle(ncclResult_t result, const char* operation, int64_t bytes) {
  const Time start = std::chrono::steady_clock::now();
  while (result == ncclInProgress) {
    check_time(start, operation, bytes);
    std::this_thread::yield();
    check(ncclCommGetAsyncError(comm_, &result), operation, bytes);
  }
  check(result, operation, bytes);
}

void NcclCommunicator::all_to_all(const void* send, std::span<const int64_t> send_counts, void* recv,
                                  std::span<const int64_t> recv_counts, DType dtype) {
  const int64_t width = size_of(dtype);
  const ncclDataType_t type = nccl_type(dtype);
  const cudaStream_t stream = current_cuda_stream();
  const auto* from = static_cast<const std::byte*>(send);
  auto* to = static_cast<std::byte*>(recv);
  int64_t bytes = 0;
  const ncclComm_t group = comm();
  check(ncclGroupStart(), "all_to_all");  // what is wrong with a call inside is told by its end
  for (int peer = 0; peer < size(); ++peer) {
    const int64_t out = send_counts[peer], in = recv_counts[peer];
    if (peer == rank()) {
      if (out > 0) CUDA_CHECK(cudaMemcpyAsync(to, from, out * width, cudaMemcpyDeviceToDevice, stream));
    } else {
      if (out > 0) ncclSend(from, out, type, peer, group, stream);
      if (in > 0) ncclRecv(to, in, type, peer, group, stream);
    }
    from += out * width;
    to += in * width;
    bytes += out * width;
  }
  settle(ncclGroupEnd(), "all_to_all", bytes);
}

void NcclCommunicator::try_out() {
  const cudaStream_t stream = current_cuda_stream();
  float* data = nullptr;
  CUDA_CHECK(cudaMallocAsync(reinterpret_cast<void**>(&data), 2 * size() * sizeof(float), stream));
  CUDA_CHECK(cudaMemsetAsync(data, 0, 2 * size() * sizeof(float), stream));
  all_reduce(data, size(), DType::kF32, ReduceOp::kSum);
  reduce_scatter(data, data + rank(), 1, DType::kF32);
  all_gather(data + rank(), data, 1, DType::kF32);
  const std::vector<int64_t> ones(size(), 1);
  all_to_all(data, ones, data + size(), ones, DType::kF32);
  CUDA_CHECK(cudaFreeAsync(data, stream));
  const Time start = std::chrono::steady_clock::now();
  for (cudaError_t state; (state = cudaStreamQuery(stream)) != cudaSuccess;) {
    if (state != cudaErrorNotReady) CUDA_CHECK(state);
    check_time(start, "first collectives", 0);
    std::this_thread::yield();
  }
}

}  // namespace

Group make_nccl(const Group& host, const CommOptions& options) {
  allow_shared_gpu(*host);
  return std::make_shared<NcclCommunicator>(host, options);
}

}  // namespace switchyard
