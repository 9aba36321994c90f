// Blocks cut out of a few large segments. Best fit, cut at the low end, and a freed block joins its free
// neighbours: what one step leaves is whole again for the next, whatever sizes its experts get. Addresses
// only: memory is never touched.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace switchyard {

class Arena {
 public:
  struct Segment {
    char* data;
    int64_t bytes;
  };

  // Null where no free block is long enough.
  char* take(int64_t bytes);
  void give(char* data) noexcept;

  void add(Segment segment);
  // Gives up the segments that hold nothing.
  std::vector<Segment> drop_free();

  int64_t bytes_of(char* data) const { return chunks_.at(data).bytes; }
  // Bytes below the highest end that was ever handed out, summed over segments: what a system that gives a
  // page when it is first written has given.
  int64_t touched() const { return touched_; }

 private:
  struct Chunk {
    int64_t bytes;
    bool free, first;  // first: of its segment
  };

  void touch(char* end);

  std::map<char*, Chunk> chunks_;             // of every segment, free or not
  std::set<std::pair<int64_t, char*>> free_;  // by size, then address
  std::map<char*, char*> ends_;               // a segment's begin, and the highest end handed out
  int64_t touched_ = 0;
};

}  // namespace switchyard
