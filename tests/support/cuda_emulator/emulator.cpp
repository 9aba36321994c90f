#include "tests/support/cuda_emulator/emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/launch.cuh"
#include "tests/support/cuda_emulator/stack.h"

namespace cuda_emulator {

thread_local Place place;

namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr unsigned kWarp = 32;
constexpr size_t kAlign = 1024;
constexpr size_t kMaxSharedBytes = 227 * 1024;  // of a block on sm_90

Order g_order = Order::kForward;

// A meeting point: complete when all that live have come. `round` tells the waiting that it is.
struct Barrier {
  uint64_t round = 0;
  unsigned arrived = 0;
};

// Lanes that meet under one mask. Values of two rounds are kept: a lane may leave its next one before all
// have read.
struct WarpBarrier {
  unsigned mask;
  unsigned arrived = 0;
  uint64_t round = 0;
  uint64_t values[2][kWarp] = {};
};

struct Warp {
  unsigned alive = 0;
  std::vector<std::unique_ptr<WarpBarrier>> barriers;
};

struct Copy {
  void* to;
  const void* from;
};

// Made once for each host thread and number; it runs one thread of a block after another.
struct Fiber {
  Stack stack;
  uint3 thread{};
  unsigned warp = 0, lane = 0;
  bool done = false;
  const uint64_t* waits_for = nullptr;  // runnable once this differs from `round`
  uint64_t round = 0;
  std::vector<std::vector<Copy>> copies;  // asynchronous ones, group by group; the last group is open
};

// The block that this host thread runs.
struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  unsigned alive = 0;
  const std::function<void()>* body = nullptr;
  std::exception_ptr error;
  Stack scheduler;
  Fiber* running = nullptr;
  std::vector<char> shared;

  ~Block() { drop_fibers(); }
  void drop_fibers() {
    for (auto& fiber : fibers) {
      forget(fiber->stack);
      munmap(fiber->stack.memory, kStackBytes);
    }
    fibers.clear();
  }
};

thread_local Block g_block;

void to_scheduler() { switch_stack(g_block.running->stack, g_block.scheduler); }

void to_fiber(Fiber& fiber) {
  g_block.running = &fiber;
  place.thread = fiber.thread;
  switch_stack(g_block.scheduler, fiber.stack);
}

void complete(Barrier& barrier) {
  if (barrier.arrived == 0 || barrier.arrived < g_block.alive) return;
  barrier.arrived = 0;
  ++barrier.round;
}

void complete(WarpBarrier& barrier, unsigned alive) {
  if (barrier.arrived == 0 || barrier.arrived != (barrier.mask & alive)) return;
  barrier.arrived = 0;
  ++barrier.round;
}

void wait(const uint64_t& round, uint64_t seen) {
  if (round != seen) return;
  g_block.running->waits_for = &round;
  g_block.running->round = seen;
  to_scheduler();
}

void run_thread() {
  try {
    (*g_block.body)();
  } catch (...) {
    g_block.error = std::current_exception();
  }
  // An exited thread is no longer waited for.
  Fiber& self = *g_block.running;
  self.done = true;
  --g_block.alive;
  Warp& warp = g_block.warps[self.warp];
  warp.alive &= ~(1u << self.lane);
  for (auto& barrier : warp.barriers) complete(*barrier, warp.alive);
  complete(g_block.barrier);
}

void fiber_main() {
  arrived_on(g_block.running->stack, g_block.scheduler);
  while (true) {
    run_thread();
    to_scheduler();
  }
}

void make_fiber() {
  void* memory =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED, "no memory for the stack of fiber ", g_block.fibers.size());
  // Stacks that all began at multiples of a page would meet in the same few lines of the caches.
  const size_t unused = g_block.fibers.size() * 320 % (32 << 10);
  start_on(g_block.fibers.emplace_back(std::make_unique<Fiber>())->stack, memory, kStackBytes - unused,
           fiber_main);
}

void start_fibers(dim3 dim) {
  const unsigned threads = dim.x * dim.y * dim.z;
  while (g_block.fibers.size() < threads) make_fiber();
  g_block.warps.clear();
  g_block.warps.resize((threads + kWarp - 1) / kWarp);
  g_block.barrier = {};
  g_block.alive = threads;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = *g_block.fibers[i];
    fiber.thread = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
    fiber.warp = i / kWarp;
    fiber.lane = i % kWarp;
    fiber.done = false;
    fiber.waits_for = nullptr;
    fiber.copies.clear();
    g_block.warps[fiber.warp].alive |= 1u << fiber.lane;
  }
}

// Whether any thread of the block could take a turn.
bool take_turns(size_t threads) {
  bool progress = false;
  for (size_t i = 0; i < threads; ++i) {
    Fiber& fiber = *g_block.fibers[g_order == Order::kForward ? i : threads - 1 - i];
    if (fiber.done || (fiber.waits_for && *fiber.waits_for == fiber.round)) continue;
    fiber.waits_for = nullptr;
    progress = true;
    to_fiber(fiber);
  }
  return progress;
}

void run_block(dim3 dim) {
  start_fibers(dim);
  while (g_block.alive > 0) {
    const bool progress = take_turns(size_t{dim.x} * dim.y * dim.z);
    if (progress && !g_block.error) continue;
    g_block.drop_fibers();  // some stopped half-way
    if (g_block.error) std::rethrow_exception(std::exchange(g_block.error, nullptr));
    switchyard::fail(switchyard::Fault::kInternal, "deadlock: ", g_block.alive, " threads of block ",
                     place.block.x, ",", place.block.y, " wait for others that never come");
  }
  if (g_block.error) std::rethrow_exception(std::exchange(g_block.error, nullptr));
}

}  // namespace

void set_order(Order order) { g_order = order; }

void sync_block() {
  Barrier& barrier = g_block.barrier;
  const uint64_t seen = barrier.round;
  ++barrier.arrived;
  complete(barrier);
  wait(barrier.round, seen);
}

const uint64_t* exchange(unsigned mask, uint64_t value) {
  const Fiber& self = *g_block.running;
  Warp& warp = g_block.warps[self.warp];
  CHECK(mask >> self.lane & 1u, "lane ", self.lane, " is not in its own mask");
  auto found =
      std::find_if(warp.barriers.begin(), warp.barriers.end(), [&](auto& b) { return b->mask == mask; });
  if (found == warp.barriers.end())
    found = warp.barriers.insert(found, std::make_unique<WarpBarrier>(WarpBarrier{.mask = mask}));
  WarpBarrier& barrier = **found;
  const uint64_t seen = barrier.round;
  uint64_t* values = barrier.values[seen % 2];
  values[self.lane] = value;
  barrier.arrived |= 1u << self.lane;
  complete(barrier, warp.alive);
  wait(barrier.round, seen);
  return values;
}

int lane() { return static_cast<int>(g_block.running->lane); }

unsigned char* dynamic_shared() {
  // Aligned by hand, as kernels/cuda/launch.cuh promises.
  return reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(g_block.shared.data()) + kAlign - 1) /
                                          kAlign * kAlign);
}

void copy_async(void* to, const void* from) {
  auto& groups = g_block.running->copies;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back({to, from});
}

void commit_copies() {
  auto& groups = g_block.running->copies;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();  // the last group is always the open one
}

void wait_copies(size_t pending) {
  auto& groups = g_block.running->copies;
  while (groups.size() > pending + 1) {
    for (const Copy& copy : groups.front()) {
      if (copy.from)
        std::memcpy(copy.to, copy.from, 16);
      else
        std::memset(copy.to, 0, 16);
    }
    groups.erase(groups.begin());
  }
}

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
  CHECK(block.x * block.y * block.z <= 1024 && grid.y <= 65535 && grid.z <= 65535, "launch of ", grid.x,
        " x ", grid.y, " blocks of ", block.x, " x ", block.y, " x ", block.z);
  CHECK(shared_bytes <= kMaxSharedBytes, shared_bytes, " bytes of shared memory");
  g_block.body = &thread;
  // Shared memory starts out undefined.
  g_block.shared.assign(shared_bytes + kAlign, static_cast<char>(0xa5));
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = g_order == Order::kForward ? i : blocks - 1 - i;
    place.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                   static_cast<unsigned>(b / grid.x / grid.y)};
    place.block_dim = block;
    place.grid_dim = grid;
    run_block(block);
  }
}

}  // namespace cuda_emulator
