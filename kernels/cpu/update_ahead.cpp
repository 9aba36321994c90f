#include "kernels/cpu/update_ahead.h"

namespace switchyard::kernels {

// A tile fetches one of the arrays of a piece: a line at every second step, which keeps pace with the tiles
// of some 300 rows, or at every step.
void UpdateAhead::set_pace(int64_t rows, int64_t steps) {
  constexpr int64_t kManyRows = 320, kLine = 16;  // elements of a float32 line
  steps_ = steps;
  piece_ = steps * kLine / (rows < kManyRows ? 1 : 2);
}

void UpdateAhead::update_to(int64_t position) {
  while (done_ < position) {
    const int64_t stop = std::min(position, (done_ / size_ + 1) * size_);
    if (!update_.is_finished(order_[done_ / size_])) update_.update(element(done_), stop - done_);
    done_ = stop;
  }
}

void UpdateAhead::require(int64_t end) {
  update_to(end);
  fetched_ = std::max(fetched_, done_);
  if (fetching_ >= done_) return;
  fetching_ = done_;
  fetch_next_piece();
}

void UpdateAhead::fetch_next_piece() {
  if (fetching_ == end()) return;
  const int64_t first = element(fetching_), n = std::min(piece_, size_ - fetching_ % size_);
  size_t i = 0;
  for (const LateUpdate::Array& array : update_.arrays()) {
    const int64_t bytes = n * array.element_bytes;
    aheads_[i++] = Ahead(array.first + first * array.element_bytes, bytes, 1, bytes, steps_);
  }
  fetching_ += n;
}

FetchLines UpdateAhead::next(int64_t steps) {
  for (Ahead& ahead : aheads_)
    if (!ahead.is_fetched()) return ahead.next(steps);
  return aheads_[0].next(steps);
}

void UpdateAhead::tile_done() {
  for (const Ahead& ahead : aheads_)
    if (!ahead.is_fetched()) return;
  update_to(fetched_);
  fetched_ = fetching_;
  fetch_next_piece();
}

}  // namespace switchyard::kernels
