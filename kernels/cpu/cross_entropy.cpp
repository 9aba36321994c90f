#include "kernels/cross_entropy.h"

#include "kernels/cpu/loops.h"
#include "kernels/cpu/softmax.h"

namespace switchyard::kernels {
template <class T>
void run(Cpu, const CrossEntropy<T>& a) {
  using A = Acc<T>;
  for_rows(a.rows, a.vocab, [=](int64_t r) {
    const A* z = a.logits + r * a.vocab;
    T* dz = a.dlogits ? a.dlogits + r * a.vocab : nullptr;
    const int32_t target = a.target[r];
    if (target < 0) {
      a.loss[r] = 0;
      if (dz) std::fill_n(dz, a.vocab, T{});
      return;
    }
    const A lse = logsumexp(z, a.vocab), scale = a.scale;
    const A target_logit = z[target];
    a.loss[r] = lse - target_logit;
    if (!dz) return;
#pragma omp simd
    for (int64_t c = 0; c < a.vocab; ++c) store(dz[c], scale * fast_exp(z[c] - lse));
    store(dz[target], scale * (fast_exp(target_logit - lse) - 1));
  });
}

template void run(Cpu, const CrossEntropy<float>&);
template void run(Cpu, const CrossEntropy<BF16>&);
template void run(Cpu, const CrossEntropy<double>&);

}  // namespace switchyard::kernels
