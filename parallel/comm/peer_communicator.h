// The collectives over point-to-point messages, the same for every transport.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/make.h"
#include "parallel/comm/transport.h"

namespace switchyard {

class PeerCommunicator final : public Communicator {
 public:
  // `world_ranks` names the members in messages: rank i of this group is rank world_ranks[i] of the world.
  PeerCommunicator(int rank, std::vector<int> world_ranks, std::string name,
                   std::unique_ptr<Transport> transport, const CommOptions& options);

  Group split(int color, int key, std::string name) override;
  void all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) override;
  void all_gather(const void* send, void* recv, int64_t count, DType dtype) override;
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override;
  void broadcast(void* data, int64_t count, DType dtype, int root) override;
  void all_to_all(const void* send, std::span<const int64_t> send_counts, void* recv,
                  std::span<const int64_t> recv_counts, DType dtype) override;
  void barrier() override;
  void abort(const std::string& reason) noexcept override;

 private:
  struct Message {
    Transport::Request request;
    int peer;
    bool done = false;
  };
  using Batch = std::vector<Message>;  // messages that are waited for together

  // The kinds of operations; the value is the tag of their messages.
  enum class Kind : uint8_t {
    kAllReduce,
    kAllGather,
    kReduceScatter,
    kBroadcast,
    kAllToAll,
    kBarrier,
    kSplit
  };
  // Runs one collective: errors inside get the operation's name, and no message outlives it.
  template <class Body>
  void operation(Kind kind, int64_t bytes, Body&& body);

  void send(const void* data, int64_t bytes, int peer, Batch& batch);
  void recv(void* data, int64_t bytes, int peer, Batch& batch);
  void wait(Batch& batch);
  bool finish(const Message& message, Transport::Time deadline);
  void cancel(Batch& batch) noexcept;

  // Gathers blocks in place: rank i's block is [begins[i], begins[i + 1]) bytes of data, mine is there.
  void gather_blocks(std::byte* data, std::span<const int64_t> begins);
  // Reduces my block of everyone's `data` (bytes [begins[i], begins[i + 1]) are rank i's) into out.
  void reduce_blocks(const std::byte* data, std::span<const int64_t> begins, std::byte* out, DType dtype,
                     ReduceOp op);
  // begins_ of size() blocks of `bytes` each.
  void equal_blocks(int64_t bytes);
  void all_reduce_small(std::byte* data, int64_t count, DType dtype, ReduceOp op);

  int peer_after(int step) const { return (rank() + step) % size(); }
  int peer_before(int step) const { return (rank() - step + size()) % size(); }
  std::byte* scratch(int64_t bytes);
  std::string where() const;  // "all_to_all, layer 3 exchange, 1048576 bytes"

  std::vector<int> world_ranks_;
  std::unique_ptr<Transport> transport_;
  CommOptions options_;
  Kind kind_ = Kind::kBarrier;
  int64_t bytes_ = 0;
  bool failed_ = false;
  Batch batches_[2];
  std::vector<const void*> sources_;
  std::vector<int64_t> begins_;           // bytes
  std::unique_ptr<std::byte[]> scratch_;  // grows to the largest need, never shrinks
  int64_t scratch_bytes_ = 0;
};

}  // namespace switchyard
