#include "parallel/comm/peer_communicator.h"

#include <algorithm>
#include <cstring>

#include "parallel/comm/reduce.h"

namespace switchyard {
namespace {

// Up to here a sum costs one round of messages of the whole array, above two rounds of its blocks.
constexpr int64_t kSmallBytes = 4096;
// A piece of a block that is summed while the next one travels: of the size of a second-level cache, and less
// in large groups.
constexpr int64_t kPieceBytes = 256 << 10;
constexpr int64_t kMinPieceBytes = 32 << 10;
constexpr int64_t kScratchBytes = 8 << 20;
constexpr int64_t kTreePieceBytes = 1 << 20;

constexpr const char* kNames[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast",
                                  "all_to_all", "barrier",    "split"};

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
}

std::byte* bytes_of(void* data) { return static_cast<std::byte*>(data); }
const std::byte* bytes_of(const void* data) { return static_cast<const std::byte*>(data); }

}  // namespace

PeerCommunicator::PeerCommunicator(int rank, std::vector<int> world_ranks, std::string name,
                                   std::unique_ptr<Transport> transport, const CommOptions& options)
    : Communicator(rank, static_cast<int>(world_ranks.size()), std::move(name)),
      world_ranks_(std::move(world_ranks)),
      transport_(std::move(transport)),
      options_(options) {}

template <class Body>
void PeerCommunicator::operation(Kind kind, int64_t bytes, Body&& body) {
  kind_ = kind;
  bytes_ = bytes;
  if (failed_)
    fail(Fault::kPeer, "rank ", world_ranks_[rank()], " uses group ", name(), " after it failed, ", where());
  try {
    body();
  } catch (...) {
    failed_ = true;
    for (Batch& batch : batches_) cancel(batch);
    throw;
  }
}

std::string PeerCommunicator::where() const {
  const std::string& label = CommLabel::current();
  return concat(kNames[static_cast<int>(kind_)], label.empty() ? "" : ", ", label, ", ", bytes_, " bytes");
}

// An empty message is sent too; a long one in pieces that a transport can count.
void PeerCommunicator::send(const void* data, int64_t bytes, int peer, Batch& batch) {
  for (int64_t begin = 0; begin == 0 || begin < bytes; begin += options_.max_message_bytes) {
    const int64_t n = std::min(bytes - begin, options_.max_message_bytes);
    batch.push_back({transport_->send(bytes_of(data) + begin, n, peer, static_cast<int>(kind_)), peer});
  }
}

void PeerCommunicator::recv(void* data, int64_t bytes, int peer, Batch& batch) {
  for (int64_t begin = 0; begin == 0 || begin < bytes; begin += options_.max_message_bytes) {
    const int64_t n = std::min(bytes - begin, options_.max_message_bytes);
    batch.push_back({transport_->recv(bytes_of(data) + begin, n, peer, static_cast<int>(kind_)), peer});
  }
}

bool PeerCommunicator::finish(const Message& message, Transport::Time deadline) {
  try {
    return transport_->wait(message.request, deadline);
  } catch (const Error& error) {
    fail(error.fault(), "rank ", world_ranks_[rank()], " stops waiting for rank ", world_ranks_[message.peer],
         " in group ", name(), " (", size(), " ranks), ", where(), ": ", error.what());
  }
}

void PeerCommunicator::wait(Batch& batch) {
  const auto timeout = std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(options_.timeout_seconds));
  for (Message& message : batch) {
    if (!finish(message, std::chrono::steady_clock::now() + timeout)) {
      fail(Fault::kPeer, "rank ", world_ranks_[rank()], " waited ", options_.timeout_seconds, " s for rank ",
           world_ranks_[message.peer], " in group ", name(), " (", size(), " ranks), ", where(),
           ": the peer hangs or is gone");
    }
    message.done = true;
  }
  batch.clear();
}

void PeerCommunicator::cancel(Batch& batch) noexcept {
  for (const Message& message : batch) {
    if (!message.done) transport_->cancel(message.request);
  }
  batch.clear();
}

std::byte* PeerCommunicator::scratch(int64_t bytes) {
  if (scratch_bytes_ < bytes) {
    scratch_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(bytes));
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

// Each rank sends its block to every other; step s pairs a rank with the s-th after it, so that no rank is
// everybody's first target.
void PeerCommunicator::gather_blocks(std::byte* data, std::span<const int64_t> begins) {
  auto block_bytes = [&](int i) { return begins[i + 1] - begins[i]; };
  Batch& batch = batches_[0];
  for (int step = 1; step < size(); ++step) {
    const int to = peer_after(step), from = peer_before(step);
    if (block_bytes(from) > 0) recv(data + begins[from], block_bytes(from), from, batch);
    if (block_bytes(rank()) > 0) send(data + begins[rank()], block_bytes(rank()), to, batch);
  }
  wait(batch);
}

// Blocks are cut into pieces. Piece p of block i goes from every rank to rank i, which adds the N copies in
// rank order as soon as they are there, while piece p + 1 is on its way. Two pieces of N - 1 ranks are in
// scratch memory at a time.
void PeerCommunicator::reduce_blocks(const std::byte* data, std::span<const int64_t> begins, std::byte* out,
                                     DType dtype, ReduceOp op) {
  const int peers = size() - 1;
  const int64_t piece = std::clamp(kScratchBytes / (2 * peers) & ~int64_t{63}, kMinPieceBytes, kPieceBytes);
  std::byte* received = scratch(2 * peers * piece);
  auto slot = [&](int64_t p, int step) { return received + (p % 2 * peers + step - 1) * piece; };
  auto piece_bytes = [&](int block, int64_t p) {
    return std::clamp<int64_t>(begins[block + 1] - begins[block] - p * piece, 0, piece);
  };
  auto start = [&](int64_t p) {
    const int64_t mine = piece_bytes(rank(), p);
    for (int step = 1; step < size(); ++step) {
      const int to = peer_after(step);
      if (mine > 0) recv(slot(p, step), mine, peer_before(step), batches_[p % 2]);
      if (const int64_t n = piece_bytes(to, p); n > 0)
        send(data + begins[to] + p * piece, n, to, batches_[p % 2]);
    }
  };
  auto add = [&](int64_t p) {
    sources_.clear();
    for (int r = 0; r < size(); ++r) {
      const std::byte* mine = data + begins[rank()] + p * piece;
      sources_.push_back(r == rank() ? mine : slot(p, (rank() - r + size()) % size()));
    }
    reduce_arrays(out + p * piece, sources_, piece_bytes(rank(), p) / size_of(dtype), dtype, op);
  };

  int64_t longest = 0;
  for (int i = 0; i < size(); ++i) longest = std::max(longest, begins[i + 1] - begins[i]);
  const int64_t pieces = (longest + piece - 1) / piece;
  if (pieces > 0) start(0);
  for (int64_t p = 0; p < pieces; ++p) {
    if (p + 1 < pieces) start(p + 1);
    wait(batches_[p % 2]);
    add(p);
  }
}

void PeerCommunicator::all_reduce_small(std::byte* data, int64_t count, DType dtype, ReduceOp op) {
  const int64_t bytes = count * size_of(dtype);
  std::byte* received = scratch(size() * bytes);
  sources_.clear();
  for (int r = 0; r < size(); ++r) {
    sources_.push_back(r == rank() ? data : received + r * bytes);
    if (r != rank()) recv(received + r * bytes, bytes, r, batches_[0]);
  }
  for (int step = 1; step < size(); ++step) send(data, bytes, peer_after(step), batches_[0]);
  wait(batches_[0]);
  reduce_arrays(data, sources_, count, dtype, op);
}

void PeerCommunicator::all_reduce(void* data, int64_t count, DType dtype, ReduceOp op) {
  const int64_t bytes = count * size_of(dtype);
  if (size() == 1 || count == 0) return;
  operation(Kind::kAllReduce, bytes, [&] {
    if (bytes <= kSmallBytes) return all_reduce_small(bytes_of(data), count, dtype, op);
    begins_.resize(size() + 1);
    for (int64_t i = 0; i <= size(); ++i) {
      begins_[i] = (count / size() * i + std::min(i, count % size())) * size_of(dtype);
    }
    reduce_blocks(bytes_of(data), begins_, bytes_of(data) + begins_[rank()], dtype, op);
    gather_blocks(bytes_of(data), begins_);
  });
}

void PeerCommunicator::equal_blocks(int64_t bytes) {
  begins_.resize(size() + 1);
  for (int64_t i = 0; i <= size(); ++i) begins_[i] = i * bytes;
}

void PeerCommunicator::all_gather(const void* send, void* recv, int64_t count, DType dtype) {
  const int64_t bytes = count * size_of(dtype);
  copy(bytes_of(recv) + rank() * bytes, send, bytes);
  if (size() == 1) return;
  operation(Kind::kAllGather, bytes, [&] {
    equal_blocks(bytes);
    gather_blocks(bytes_of(recv), begins_);
  });
}

void PeerCommunicator::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) {
  const int64_t bytes = count * size_of(dtype);
  if (size() == 1) return copy(recv, send, bytes);
  operation(Kind::kReduceScatter, bytes, [&] {
    equal_blocks(bytes);
    reduce_blocks(bytes_of(send), begins_, bytes_of(recv), dtype, ReduceOp::kSum);
  });
}

// A binomial tree: counted from the root, rank v hears from v without its lowest set bit, and passes on to
// v + m for every power of two m below that bit. The pieces follow each other down the tree.
void PeerCommunicator::broadcast(void* data, int64_t count, DType dtype, int root) {
  const int64_t bytes = count * size_of(dtype);
  if (size() == 1) return;
  operation(Kind::kBroadcast, bytes, [&] {
    const int v = (rank() - root + size()) % size();
    auto peer = [&](int virtual_rank) { return (virtual_rank + root) % size(); };
    int lowest = 1;
    while (lowest < size() && (v & lowest) == 0) lowest <<= 1;
    for (int64_t begin = 0; begin < bytes; begin += kTreePieceBytes) {
      const int64_t n = std::min(kTreePieceBytes, bytes - begin);
      if (v != 0) recv(bytes_of(data) + begin, n, peer(v - lowest), batches_[0]);
      wait(batches_[0]);
      for (int m = lowest >> 1; m > 0; m >>= 1) {
        if (v + m < size()) send(bytes_of(data) + begin, n, peer(v + m), batches_[1]);
      }
    }
    wait(batches_[1]);
  });
}

void PeerCommunicator::all_to_all(const void* send_data, std::span<const int64_t> send_counts,
                                  void* recv_data, std::span<const int64_t> recv_counts, DType dtype) {
  const int64_t width = size_of(dtype);
  CHECK(std::ssize(send_counts) == size() && std::ssize(recv_counts) == size(), "group ", name());
  CHECK(send_counts[rank()] == recv_counts[rank()], "a rank's block to itself, group ", name());
  // The first bytes of the blocks: sent ones, then received ones.
  begins_.assign(2 * size(), 0);
  int64_t* send_begins = begins_.data();
  int64_t* recv_begins = begins_.data() + size();
  for (int i = 1; i < size(); ++i) {
    send_begins[i] = send_begins[i - 1] + send_counts[i - 1] * width;
    recv_begins[i] = recv_begins[i - 1] + recv_counts[i - 1] * width;
  }
  const int64_t bytes = send_begins[size() - 1] + send_counts[size() - 1] * width;
  operation(Kind::kAllToAll, bytes, [&] {
    for (int step = 1; step < size(); ++step) {
      const int to = peer_after(step), from = peer_before(step);
      const int64_t in = recv_counts[from] * width, out = send_counts[to] * width;
      if (in > 0) recv(bytes_of(recv_data) + recv_begins[from], in, from, batches_[0]);
      if (out > 0) send(bytes_of(send_data) + send_begins[to], out, to, batches_[0]);
    }
    copy(bytes_of(recv_data) + recv_begins[rank()], bytes_of(send_data) + send_begins[rank()],
         send_counts[rank()] * width);
    wait(batches_[0]);
  });
}

// Round k tells the 2^k-th rank after me that I and all I have heard of are here: after log2(N) rounds,
// everybody is.
void PeerCommunicator::barrier() {
  operation(Kind::kBarrier, 0, [&] {
    for (int distance = 1; distance < size(); distance <<= 1) {
      recv(nullptr, 0, peer_before(distance), batches_[0]);
      send(nullptr, 0, peer_after(distance), batches_[0]);
      wait(batches_[0]);
    }
  });
}

Group PeerCommunicator::split(int color, int key, std::string name) {
  struct Choice {
    int color, key;
  };
  std::vector<Choice> choices(size());
  choices[rank()] = {color, key};
  std::vector<int> members;
  std::unique_ptr<Transport> transport;
  operation(Kind::kSplit, sizeof(Choice), [&] {
    equal_blocks(sizeof(Choice));
    gather_blocks(reinterpret_cast<std::byte*>(choices.data()), begins_);
    for (int r = 0; r < size(); ++r) {
      if (choices[r].color == color) members.push_back(r);
    }
    std::stable_sort(members.begin(), members.end(),
                     [&](int a, int b) { return choices[a].key < choices[b].key; });
    transport = transport_->subgroup(members);
  });
  const auto mine = std::find(members.begin(), members.end(), rank()) - members.begin();
  std::vector<int> world_ranks;
  for (int r : members) world_ranks.push_back(world_ranks_[r]);
  return std::make_shared<PeerCommunicator>(static_cast<int>(mine), std::move(world_ranks), std::move(name),
                                            std::move(transport), options_);
}

void PeerCommunicator::abort(const std::string& reason) noexcept { transport_->abort(reason); }

}  // namespace switchyard
