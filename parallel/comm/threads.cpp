// Ranks as threads of one process. A message is copied once, from the sender's memory to the receiver's:
// whoever comes second finds the other's half in the channel of the pair, and both copy pieces of it while
// they wait for it.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "parallel/comm/make.h"
#include "parallel/comm/peer_communicator.h"

namespace switchyard {
namespace {

constexpr int64_t kCopyPiece = 128 << 10;
constexpr auto kSpin = std::chrono::microseconds(30);  // before a wait sleeps

enum class Side : uint8_t { kSender, kReceiver };

// The fields without a remark are set under World::mutex until `matched`, and constant from then on.
struct Message {
  std::byte* from = nullptr;
  std::byte* to = nullptr;
  int64_t bytes = 0;
  int tag = 0;
  Side first_side = Side::kSender;     // who came first
  std::atomic<bool> matched = false;   // both are there
  std::atomic<int64_t> next = 0;       // the first byte that nobody copies yet
  std::atomic<int64_t> remaining = 0;  // bytes not yet copied
  int halves = 1;                      // sides that hold it; under World::mutex
};

// What all ranks of a run share.
struct World {
  explicit World(int ranks) : wake(ranks) {}

  Message& new_message() {
    if (unused.empty()) return messages.emplace_back();
    Message& message = *unused.back();
    unused.pop_back();
    message.matched = false;
    message.next = 0;
    message.halves = 1;
    return message;
  }

  std::vector<std::condition_variable> wake;  // one a rank: its message is matched, or the world has failed
  std::mutex mutex;                           // guards all below
  std::string failure;                        // "rank 2 failed: ..."; empty while all is well
  std::deque<Message> messages;               // every message ever made, to be used again
  std::vector<Message*> unused;
};

// What all ranks of a group share.
struct Meeting {
  Meeting(std::shared_ptr<World> w, std::vector<int> ranks)
      : world(std::move(w)),
        world_ranks(std::move(ranks)),
        channels(world_ranks.size() * world_ranks.size()) {}

  struct Pending {
    std::shared_ptr<Meeting> meeting;
    size_t joined = 0;
  };

  const std::shared_ptr<World> world;
  const std::vector<int> world_ranks;
  // Guarded by world->mutex. Channel (source, target): halves, all of one side, that wait for the other one.
  std::vector<std::deque<Message*>> channels;
  // Subgroups in the making, by (which split of this group, first member).
  std::map<std::pair<int64_t, int>, Pending> splits;
};

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(std::shared_ptr<Meeting> meeting, int rank)
      : meeting_(std::move(meeting)), world_(*meeting_->world), rank_(rank) {}

  Request send(const void* data, int64_t bytes, int peer, int tag) override {
    return post(rank_, peer, Side::kSender, const_cast<void*>(data), bytes, tag);
  }
  Request recv(void* data, int64_t bytes, int peer, int tag) override {
    return post(peer, rank_, Side::kReceiver, data, bytes, tag);
  }
  bool wait(Request request, Time deadline) override;
  void cancel(Request request) noexcept override;
  std::unique_ptr<Transport> subgroup(std::span<const int> members) override;
  void abort(const std::string& reason) noexcept override;

 private:
  struct Half {
    Message* message;
    std::deque<Message*>* channel;
  };

  Request post(int source, int target, Side side, void* memory, int64_t bytes, int tag);
  void finish(Message& message);
  void release(Request request);
  std::condition_variable& wake(int rank) { return world_.wake[meeting_->world_ranks[rank]]; }

  std::shared_ptr<Meeting> meeting_;
  World& world_;
  int rank_;
  int64_t splits_ = 0;
  RequestSlots<Half> halves_;
};

Transport::Request ThreadTransport::post(int source, int target, Side side, void* memory, int64_t bytes,
                                         int tag) {
  const std::lock_guard lock(world_.mutex);
  auto& channel = meeting_->channels[source * meeting_->world_ranks.size() + target];
  const bool second = !channel.empty() && channel.front()->first_side != side;
  Message& message = second ? *channel.front() : world_.new_message();
  if (second && (message.bytes != bytes || message.tag != tag)) {
    fail(Fault::kInternal, "ranks of one group call different collectives: ", bytes, " bytes here, ",
         message.bytes, " bytes there");
  }
  (side == Side::kSender ? message.from : message.to) = static_cast<std::byte*>(memory);
  if (second) {
    channel.pop_front();
    message.halves = 2;
    message.matched.store(true, std::memory_order_release);
    wake(side == Side::kSender ? target : source).notify_one();
  } else {
    message.first_side = side;
    message.bytes = bytes;
    message.remaining = bytes;
    message.tag = tag;
    channel.push_back(&message);
  }
  return halves_.add({&message, &channel});
}

// Copies what is left of a matched message together with the other side, and returns when all of it is there.
void ThreadTransport::finish(Message& message) {
  for (int64_t begin; (begin = message.next.fetch_add(kCopyPiece)) < message.bytes;) {
    const int64_t n = std::min(kCopyPiece, message.bytes - begin);
    std::memcpy(message.to + begin, message.from + begin, static_cast<size_t>(n));
    if (message.remaining.fetch_sub(n) == n) message.remaining.notify_all();
  }
  for (int64_t left; (left = message.remaining.load()) != 0;) message.remaining.wait(left);
}

void ThreadTransport::release(Request request) {
  Message& message = *halves_[request].message;
  halves_.remove(request);
  const std::lock_guard lock(world_.mutex);
  if (--message.halves == 0) world_.unused.push_back(&message);
}

bool ThreadTransport::wait(Request request, Time deadline) {
  Message& message = *halves_[request].message;
  const Time spin_end = std::chrono::steady_clock::now() + kSpin;
  while (!message.matched.load(std::memory_order_acquire) && std::chrono::steady_clock::now() < spin_end) {
    std::this_thread::yield();
  }
  if (!message.matched.load(std::memory_order_acquire)) {
    std::unique_lock lock(world_.mutex);
    wake(rank_).wait_until(lock, deadline, [&] { return message.matched || !world_.failure.empty(); });
    if (!message.matched) {
      if (!world_.failure.empty()) fail(Fault::kPeer, world_.failure);
      return false;
    }
  }
  finish(message);
  release(request);
  return true;
}

void ThreadTransport::cancel(Request request) noexcept {
  const Half half = halves_[request];
  {
    const std::lock_guard lock(world_.mutex);
    if (!half.message->matched) std::erase(*half.channel, half.message);
  }
  // A peer may be copying from or to our memory.
  if (half.message->matched) finish(*half.message);
  release(request);
}

std::unique_ptr<Transport> ThreadTransport::subgroup(std::span<const int> members) {
  std::vector<int> world_ranks;
  for (int member : members) world_ranks.push_back(meeting_->world_ranks[member]);
  const auto rank = std::find(members.begin(), members.end(), rank_) - members.begin();

  const std::lock_guard lock(world_.mutex);
  const auto place = meeting_->splits.try_emplace({splits_++, members[0]}).first;
  auto& [meeting, joined] = place->second;
  if (!meeting) meeting = std::make_shared<Meeting>(meeting_->world, std::move(world_ranks));
  auto transport = std::make_unique<ThreadTransport>(meeting, static_cast<int>(rank));
  if (++joined == members.size()) meeting_->splits.erase(place);
  return transport;
}

void ThreadTransport::abort(const std::string& reason) noexcept {
  const std::lock_guard lock(world_.mutex);
  if (!world_.failure.empty()) return;
  world_.failure = concat("rank ", meeting_->world_ranks[rank_], " failed: ", reason);
  for (auto& waiting : world_.wake) waiting.notify_one();
}

}  // namespace

void run_ranks(int ranks, const std::function<void(Group)>& body, const CommOptions& options) {
  CHECK(ranks >= 1);
  std::vector<int> all(ranks);
  std::iota(all.begin(), all.end(), 0);
  const auto meeting = std::make_shared<Meeting>(std::make_shared<World>(ranks), all);
  std::mutex mutex;
  std::exception_ptr first;
  auto run = [&](int rank) {
    const Group group = std::make_shared<PeerCommunicator>(
        rank, all, "world", std::make_unique<ThreadTransport>(meeting, rank), options);
    std::string reason = "unknown error";
    try {
      return body(group);
    } catch (const std::exception& error) {
      reason = error.what();
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    }
    group->abort(reason);
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace switchyard
