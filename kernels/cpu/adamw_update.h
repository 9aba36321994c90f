// AdamW's arithmetic on a run of elements, for the kernels that differ in where gradients come from.
#pragma once

#include "kernels/adamw.h"

namespace switchyard::kernels {

template <class T, class M>
class AdamWUpdate {
 public:
  using A = Acc<T>;
  explicit AdamWUpdate(const AdamW<T, M>& args);

  // Elements [begin, begin + n), whose gradients before clipping are grad[0, n). Of each alone, so any cut
  // gives the same bits.
  void operator()(int64_t begin, int64_t n, const A* grad) const;

 private:
  void update_block(int64_t begin, int64_t n, const A* grad) const;

  T* p_;
  A* master_;
  M *m_, *v_;
  A clip_, keep_, slope_, beta2_, mix2_, root_, step_, eps_;
  bool near_;  // lerp(m, g, w) is m + w (g - m), or g - (1 - w)(g - m) from w = 1/2 on
};

}  // namespace switchyard::kernels
