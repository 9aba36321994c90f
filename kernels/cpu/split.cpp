#include "kernels/split.h"

#include "kernels/cpu/loops.h"

namespace switchyard::kernels {

void run(Cpu, const Split& a) {
  for_rows(a.rows, a.cols, [=](int64_t r) {
    for (int64_t c = 0; c < a.cols; ++c) {
      const float x = a.x[r * a.cols + c];
      const BF16 hi(x);
      const float rest = x - static_cast<float>(hi);
      const BF16 mid(rest);
      const BF16 part[] = {hi, mid, BF16(rest - static_cast<float>(mid))};
      for (int t = 0; t < a.terms; ++t)
        a.y[(r * a.terms + t) * a.cols + c] = part[static_cast<int>(a.part[t])];
    }
  });
}

void run(Cpu, const SumParts& a) {
  for_rows(a.rows, a.cols, [=](int64_t r) {
    float* y = a.y + r * a.cols;
    const float *hi = a.x + r * 3 * a.cols, *mid = hi + a.cols, *lo = mid + a.cols;
    for (int64_t c = 0; c < a.cols; ++c) {
      const float sum = (lo[c] + mid[c]) + hi[c];
      y[c] = a.accumulate ? y[c] + sum : sum;
    }
  });
}

}  // namespace switchyard::kernels
