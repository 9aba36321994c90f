// Bytes from one rank of a group to another: all that a backend must be able to do. The collectives are
// written once on top of it (peer_communicator.h). A transport belongs to one rank and is used by one thread
// at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

class Transport {
 public:
  using Request = int;
  using Time = std::chrono::steady_clock::time_point;

  virtual ~Transport() = default;

  // Start a message and return at once. The memory belongs to the transport until wait() or cancel() of the
  // request. Messages of a pair of ranks arrive in the order of sending; both sides give the same size and
  // tag. 0 bytes is a message too. `bytes` is below 2^31, `tag` below 2^13.
  virtual Request send(const void* data, int64_t bytes, int peer, int tag) = 0;
  virtual Request recv(void* data, int64_t bytes, int peer, int tag) = 0;

  // True when the message is through (the request is then gone), false at the deadline. Throws Error{kPeer}
  // when it can no longer succeed; the request then still needs cancel().
  virtual bool wait(Request request, Time deadline) = 0;
  // Ends a request that will not be waited for any more.
  virtual void cancel(Request request) noexcept = 0;

  // The transport among `members` (ranks of this one, in the order of the new ranks; the caller is one of
  // them). Collective over all ranks of this transport.
  virtual std::unique_ptr<Transport> subgroup(std::span<const int> members) = 0;
  // Ends the waits of all ranks of the world, where the backend can.
  virtual void abort(const std::string& reason) noexcept = 0;
};

// Requests as small integers: places that are used again, so that a steady state allocates nothing.
template <class T>
class RequestSlots {
 public:
  int add(T value) {
    if (free_.empty()) {
      values_.push_back(std::move(value));
      return static_cast<int>(values_.size()) - 1;
    }
    const int slot = free_.back();
    free_.pop_back();
    values_[slot] = std::move(value);
    return slot;
  }
  // Stays where it is while others are added.
  T& operator[](int slot) { return values_[slot]; }
  void remove(int slot) { free_.push_back(slot); }

 private:
  std::deque<T> values_;
  std::vector<int> free_;
};

}  // namespace switchyard
