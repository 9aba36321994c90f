#include "kernels/embedding.h"

#include "kernels/cpu/loops.h"

namespace switchyard::kernels {

template <class T>
void run(Cpu, const EmbeddingForward<T>& a) {
  for_rows(a.tokens, a.cols,
           [=](int64_t t) { std::copy_n(a.table + a.ids[t] * a.cols, a.cols, a.y + t * a.cols); });
}

// A run is a stretch of equal ids in sorted order; whoever meets its first token adds it whole. Columns are
// cut too, so that one frequent id does not leave the other threads idle.
template <class T>
void run(Cpu, const EmbeddingBackward<T>& a) {
  using A = Acc<T>;
  constexpr int64_t kSlice = 128;
  const int64_t slices = (a.cols + kSlice - 1) / kSlice;
#pragma omp parallel for collapse(2) schedule(static) if (a.tokens * a.cols >= kParallelFrom)
  for (int64_t slice = 0; slice < slices; ++slice) {
    for (int64_t first = 0; first < a.tokens; ++first) {
      const int32_t id = a.sorted_ids[first];
      if (first > 0 && a.sorted_ids[first - 1] == id) continue;
      const int64_t begin = slice * kSlice, n = std::min(kSlice, a.cols - begin);
      A* out = a.dtable + id * a.cols + begin;
      for (int64_t i = first; i < a.tokens && a.sorted_ids[i] == id; ++i) {
        const T* dy = a.dy + a.order[i] * a.cols + begin;
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) out[c] += static_cast<A>(dy[c]);
      }
    }
  }
}

#define SWITCHYARD_INSTANTIATE(T)                     \
  template void run(Cpu, const EmbeddingForward<T>&); \
  template void run(Cpu, const EmbeddingBackward<T>&);
SWITCHYARD_INSTANTIATE(float)
SWITCHYARD_INSTANTIATE(BF16)
SWITCHYARD_INSTANTIATE(double)
#undef SWITCHYARD_INSTANTIATE

}  // namespace switchyard::kernels
