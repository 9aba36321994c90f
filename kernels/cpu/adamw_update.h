// AdamW's arithmetic on a run of elements, for the kernels that differ in where gradients come from.
#pragma once

#include "kernels/adamw.h"

namespace switchyard::kernels {

template <class T, class M>
class AdamWUpdate {
 public:
  using A = Acc<T>;
  // `may_stream`: parameters may be written past the cache, because nobody reads them soon.
  explicit AdamWUpdate(const AdamW<T, M>& args, bool may_stream = false);

  // Elements [begin, begin + n), whose gradients before clipping are grad[0, n). Of each alone, so any cut
  // gives the same bits.
  void operator()(int64_t begin, int64_t n, const A* grad) const;

  // To be called by a thread whose elements are updated, before anybody else reads them.
  void finish() const;

 private:
  void update_block(int64_t begin, int64_t n, const A* grad) const;
  void round_parameters(int64_t begin, int64_t n) const;

  T* p_;
  A* master_;
  M *m_, *v_;
  A clip_, keep_, slope_, beta2_, mix2_, root_, step_, eps_;
  bool near_;  // lerp(m, g, w) is m + w (g - m), or g - (1 - w)(g - m) from w = 1/2 on
  bool streams_;
};

}  // namespace switchyard::kernels
