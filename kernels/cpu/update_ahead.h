// A late update (kernels/late_update.h) that runs beside the products which need it, on one thread: piece by
// piece, while tiles fetch the next piece's memory, and always ahead of what a product reads.
#pragma once

#include <array>
#include <span>

#include "kernels/cpu/ahead.h"
#include "kernels/late_update.h"

namespace switchyard::kernels {

class UpdateAhead {
 public:
  // The matrices of `size` elements that products will read, in that order, each by its number among all of
  // the update's. A position counts their elements in that order.
  UpdateAhead(const LateUpdate& update, std::span<const int64_t> order, int64_t size)
      : update_(update), order_(order), size_(size) {}

  // For a product of so many rows, tiles of so many steps: what a tile can fetch in its time.
  void set_pace(int64_t rows, int64_t steps);

  // Brings up to date what is before `end`, a position.
  void require(int64_t end);

  bool is_done() const { return done_ == end(); }
  FetchLines next(int64_t steps);  // for a tile
  void tile_done();

 private:
  int64_t end() const { return std::ssize(order_) * size_; }
  int64_t element(int64_t position) const { return order_[position / size_] * size_ + position % size_; }
  void update_to(int64_t position);
  void fetch_next_piece();

  const LateUpdate& update_;
  std::span<const int64_t> order_;
  int64_t size_, steps_ = 64, piece_ = 1024;
  // Positions: all before done_ is up to date; what follows up to fetched_ is in the cache, and up to
  // fetching_ on its way there.
  int64_t done_ = 0, fetched_ = 0, fetching_ = 0;
  std::array<Ahead, 5> aheads_;  // of the arrays of the piece on its way
};

}  // namespace switchyard::kernels
