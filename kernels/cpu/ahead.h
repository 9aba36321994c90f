// What a product fetches while its tiles are computed.
#pragma once

#include <bit>
#include <utility>

#include "kernels/cpu/panels.h"

namespace switchyard::kernels {

// The lines of a [rows, cols] block that is wanted next, handed out tile by tile: one at every step, or at
// every second step where `steps` of them are left for it and that is enough. At every step a core waits for
// lines that are on their way.
class Ahead {
 public:
  Ahead() = default;  // nothing is wanted
  template <class T>
  Ahead(const T* block, int64_t ld, int64_t rows, int64_t cols, int64_t steps)
      : lines_{reinterpret_cast<const char*>(block), ld * static_cast<int64_t>(sizeof(T)), 0, 0, 0, 0} {
    if (ld == cols) cols *= std::exchange(rows, 1);  // one long row
    const int64_t lines = (cols * static_cast<int64_t>(sizeof(T)) + 63) / 64;
    lines_.log2_lines = std::bit_width(static_cast<uint64_t>(lines - 1));
    lines_.log2_steps = 2 * rows * lines <= steps ? 1 : 0;
    lines_.last = ((rows - 1) << lines_.log2_lines) + lines - 1;
  }

  bool is_fetched() const { return lines_.first > lines_.last; }

  // For a tile of so many steps. When all is fetched: a line that is in the cache.
  FetchLines next(int64_t steps) {
    if (is_fetched()) return {reinterpret_cast<const char*>(this), 0, 0, 0, 0, 0};
    const FetchLines now = lines_;
    lines_.first += ((steps - 1) >> lines_.log2_steps) + 1;
    return now;
  }

 private:
  FetchLines lines_{nullptr, 0, 0, 0, 0, -1};
};

}  // namespace switchyard::kernels
