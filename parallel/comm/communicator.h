// A group of processes (or threads) that take part in collectives together. Raw: memory, counts and types; no
// tensors, no gradients (those are in parallel/collectives.h), no global state.
//
// All ranks of a group call the same operations in the same order. Every wait has a deadline: past it, or
// when a peer is lost, Error{Fault::kPeer} names rank, peer, group, operation, label, bytes. Counts are
// elements and may exceed 2^31; they may be 0, and every rank still enters the call. Sums of floats are taken
// in rank order: the same bits on every rank and in every run.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "kernels/dtype.h"

namespace switchyard {

enum class ReduceOp : uint8_t { kSum, kMax, kMin };

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }  // "world", "ep", ...: for messages

  // The ranks with equal `color`, ordered by (key, rank). Collective. `name` is the new group's.
  virtual std::shared_ptr<Communicator> split(int color, int key, std::string name) = 0;

  // `data` is host memory, or device memory where on_device(). kF32, kBF16 (summed in float32, rounded once),
  // kF64, kI32, kI64.
  virtual void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op = ReduceOp::kSum) = 0;
  // recv holds size() blocks of `count`, in rank order. send may be this rank's block of recv.
  virtual void all_gather(const void* send, void* recv, int64_t count, DType dtype) = 0;
  // send holds size() blocks of `count`; recv gets the sum over ranks of block rank(), and may be that block.
  virtual void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) = 0;
  virtual void broadcast(void* data, int64_t count, DType dtype, int root) = 0;
  // Block i of send (send_counts[i] elements, blocks back to back) goes to rank i; recv likewise. send and
  // recv do not overlap.
  virtual void all_to_all(const void* send, std::span<const int64_t> send_counts, void* recv,
                          std::span<const int64_t> recv_counts, DType dtype) = 0;
  virtual void barrier() = 0;

  // Whether the data pointers above are CUDA memory (NCCL), ordered on the calling thread's current stream.
  virtual bool on_device() const { return false; }
  // Tells the peers of this group and its parents that this rank fails: their waits
  // end at once. Never throws.
  virtual void abort(const std::string& reason) noexcept = 0;

 protected:
  Communicator(int rank, int size, std::string name) : rank_(rank), size_(size), name_(std::move(name)) {}

 private:
  int rank_, size_;
  std::string name_;
};

using Group = std::shared_ptr<Communicator>;

// Where in the model the calling thread is ("layer 3 exchange"), for error messages. Nests.
class CommLabel {
 public:
  explicit CommLabel(std::string label);
  ~CommLabel();
  CommLabel(const CommLabel&) = delete;
  CommLabel& operator=(const CommLabel&) = delete;
  static const std::string& current();

 private:
  std::string previous_;
};

}  // namespace switchyard
