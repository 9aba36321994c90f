#include "core/device/arena.h"

#include <algorithm>

namespace switchyard {

char* Arena::take(int64_t bytes) {
  const auto found = free_.lower_bound({bytes, nullptr});
  if (found == free_.end()) return nullptr;
  const auto chunk = chunks_.find(found->second);
  free_.erase(found);
  const int64_t rest = chunk->second.bytes - bytes;
  if (rest > 0) {
    chunk->second.bytes = bytes;
    const auto tail = chunks_.emplace_hint(std::next(chunk), chunk->first + bytes, Chunk{rest, true, false});
    free_.emplace(rest, tail->first);
  }
  chunk->second.free = false;
  touch(chunk->first + bytes);
  return chunk->first;
}

void Arena::give(char* data) noexcept {
  auto chunk = chunks_.find(data);
  chunk->second.free = true;
  const auto next = std::next(chunk);
  if (next != chunks_.end() && next->second.free && !next->second.first) {
    free_.erase({next->second.bytes, next->first});
    chunk->second.bytes += next->second.bytes;
    chunks_.erase(next);
  }
  if (!chunk->second.first && std::prev(chunk)->second.free) {
    const auto previous = std::prev(chunk);
    free_.erase({previous->second.bytes, previous->first});
    previous->second.bytes += chunk->second.bytes;
    chunks_.erase(chunk);
    chunk = previous;
  }
  free_.emplace(chunk->second.bytes, chunk->first);
}

void Arena::add(Segment segment) {
  chunks_.emplace(segment.data, Chunk{segment.bytes, true, true});
  free_.emplace(segment.bytes, segment.data);
  ends_.emplace(segment.data, segment.data);
}

std::vector<Arena::Segment> Arena::drop_free() {
  std::vector<Segment> dropped;
  for (auto [begin, end] : ends_) {
    const auto chunk = chunks_.find(begin);
    const auto next = std::next(chunk);
    if (!chunk->second.free || (next != chunks_.end() && !next->second.first)) continue;
    dropped.push_back({begin, chunk->second.bytes});
    touched_ -= end - begin;
    free_.erase({chunk->second.bytes, begin});
    chunks_.erase(chunk);
  }
  for (const Segment& segment : dropped) ends_.erase(segment.data);
  return dropped;
}

void Arena::touch(char* end) {
  char*& highest = std::prev(ends_.lower_bound(end))->second;
  if (end <= highest) return;
  touched_ += end - highest;
  highest = end;
}

}  // namespace switchyard
