// Pieces of a weight gradient that is left as factors (kernels/gradient_factors.h), on the calling thread.
#pragma once

#include "kernels/cpu/panels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/gradient_factors.h"

namespace switchyard::kernels {

// dW of one group, kMr of its n rows after the other: a tile is kNr columns of them. The same bits as
// packed_gemm's. A thread makes one at a time.
template <class T>
class FactorProduct {
 public:
  using E = PanelElement<T>;

  FactorProduct(const GradientFactors<T>& factors, int64_t group)
      : dy_(factors.dy + factors.offsets[group] * factors.n),
        n_(factors.n),
        k_(factors.k),
        rows_(factors.rows(group)),
        steps_(switchyard::kernels::steps<E>(rows_)) {
    thread_local Scratch<E> x_scratch, dy_scratch;
    x_ = x_scratch.reserve(whole_panels(k_, kNr) * steps_);
    dy_panel_ = dy_scratch.reserve(kMr * steps_);
    pack<kNr>(x_, factors.x + factors.offsets[group] * k_, k_, k_, rows_, false);
  }

  int64_t steps() const { return steps_; }  // of a tile

  void go_to_row(int64_t i) { pack<kMr>(dy_panel_, dy_ + i, n_, std::min(kMr, n_ - i), rows_, false); }

  // Columns from j on into to [kMr, k]; rows that do not exist are zeros.
  template <class Fetch = FetchNothing>
  void tile_at(int64_t j, float* to, Fetch fetch = {}) const {
    const APanel<E> a{dy_panel_};
    const BPanel<E> b{x_ + j * steps_};
    if (j + kNr <= k_) return tile(steps_, a, b, to + j, k_, Into::kReplace, fetch);
    alignas(64) float whole[kMr * kNr];
    tile(steps_, a, b, whole, kNr, Into::kReplace, fetch);
    for (int64_t i = 0; i < kMr; ++i) std::copy_n(whole + i * kNr, k_ - j, to + i * k_ + j);
  }

 private:
  const T* dy_;
  int64_t n_, k_, rows_, steps_;
  E *x_, *dy_panel_;
};

}  // namespace switchyard::kernels
