// Blocks in segments: joined when freed, best fit, and the count of what was touched.
#include "core/device/arena.h"

#include <gtest/gtest.h>

#include <random>

#include "core/device/memory.h"

namespace switchyard {
namespace {

// The arena touches no memory, so that any address will do.
char* at(int64_t address) { return reinterpret_cast<char*>(address); }

constexpr int64_t kBegin = 1 << 20, kBytes = 4096;

TEST(ArenaTest, FreedNeighboursJoin) {
  Arena arena;
  arena.add({at(kBegin), kBytes});
  char* a = arena.take(1024);
  char* b = arena.take(1024);
  char* c = arena.take(2048);
  EXPECT_EQ(arena.take(1), nullptr);
  arena.give(a);
  arena.give(c);
  EXPECT_EQ(arena.take(3072), nullptr);
  arena.give(b);
  EXPECT_EQ(arena.take(kBytes), at(kBegin));
}

TEST(ArenaTest, TheShortestHoleThatFitsIsTaken) {
  Arena arena;
  arena.add({at(kBegin), kBytes});
  char* wide = arena.take(1024);
  arena.take(256);
  char* narrow = arena.take(512);
  arena.take(256);
  arena.give(wide);
  arena.give(narrow);
  EXPECT_EQ(arena.take(512), narrow);
  EXPECT_EQ(arena.take(512), wide);
}

TEST(ArenaTest, SegmentsThatTouchStayApart) {
  Arena arena;
  arena.add({at(kBegin), kBytes});
  arena.add({at(kBegin + kBytes), kBytes});
  char* a = arena.take(kBytes);
  char* b = arena.take(kBytes);
  arena.give(a);
  arena.give(b);
  EXPECT_EQ(arena.take(kBytes + 1), nullptr);
  EXPECT_EQ(arena.drop_free().size(), 2u);
  EXPECT_EQ(arena.take(1), nullptr);
}

TEST(ArenaTest, TouchedIsTheHighestEndOfEachSegment) {
  Arena arena;
  arena.add({at(kBegin), kBytes});
  char* a = arena.take(1024);
  arena.give(a);
  arena.take(512);
  EXPECT_EQ(arena.touched(), 1024);
  arena.take(1024);
  EXPECT_EQ(arena.touched(), 1536);
}

TEST(ArenaTest, BlocksNeverOverlap) {
  Arena arena;
  arena.add({at(kBegin), 1 << 16});
  std::mt19937 random(1);
  std::map<char*, int64_t> live;
  for (int i = 0; i < 5000; ++i) {
    if (random() % 2 == 0) {
      const int64_t bytes = 1 + random() % 3000;
      char* data = arena.take(bytes);
      if (data == nullptr) continue;
      const auto next = live.lower_bound(data);
      ASSERT_TRUE(next == live.end() || data + bytes <= next->first);
      ASSERT_TRUE(next == live.begin() || std::prev(next)->first + std::prev(next)->second <= data);
      live[data] = bytes;
    } else if (!live.empty()) {
      const auto victim = std::next(live.begin(), random() % live.size());
      arena.give(victim->first);
      live.erase(victim);
    }
  }
  for (const auto& [data, bytes] : live) arena.give(data);
  EXPECT_EQ(arena.take(1 << 16), at(kBegin));
}

// Ragged rows: every round asks for other sizes, and no round leaves anything behind.
TEST(MemoryTest, ChangingSizesDoNotPileUp) {
  release_cached(Device::kMeta);
  reset_peak(Device::kMeta);
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    std::vector<Block> blocks;
    blocks.reserve(20);
    for (int i = 0; i < 20; ++i) blocks.push_back(allocate(Device::kMeta, (1 << 20) + random() % (1 << 19)));
    for (const Block& block : blocks) release(block);
  }
  const MemoryStats stats = memory_stats(Device::kMeta);
  EXPECT_LE(stats.peak_held, stats.peak + (4 << 20));  // whole pages, and little else
}

// Moments as long as their parameters: a stride of 64 MiB would put all of them into the same cache sets.
TEST(MemoryTest, LongBlocksOfOneSizeLieApart) {
  constexpr int64_t kLong = 64 << 20, kSameSets = 1 << 16;
  release_cached(Device::kMeta);
  const Block first = allocate(Device::kMeta, kLong), second = allocate(Device::kMeta, kLong);
  const int64_t stride = static_cast<char*>(second.data) - static_cast<char*>(first.data);
  EXPECT_NE(stride % kSameSets, 0);
  EXPECT_EQ(first.bytes, kLong);  // what was asked for is what is counted
  release(second);
  release(first);
}

}  // namespace
}  // namespace switchyard
