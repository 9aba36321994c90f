#include <omp.h>

#include <utility>

#include "kernels/cpu/adamw_update.h"
#include "kernels/cpu/factor_product.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kPiece = kMr * kNr;                   // elements of a tile
constexpr int64_t kLine = 16, kLines = kPiece / kLine;  // elements of a float32 line, and lines of a piece
constexpr int64_t kShort = kLines / 2;                  // steps of a tile that leave no time to fetch a piece

// The weights and moments of a piece, to be written, into the second-level cache: kPerStep lines of each at
// every 2^log2_steps steps of a tile.
template <class T, class M, int kPerStep>
struct FetchPiece {
  const T* p;
  const Acc<T>* master;
  const M *m, *v;
  int log2_steps;

  [[gnu::always_inline]] void operator()(int64_t l) const {
#pragma GCC unroll 2
    for (int i = 0; i < kPerStep; ++i) {
      const int64_t line = std::min((l >> log2_steps) * kPerStep + i, kLines - 1);
      fetch(p, line), fetch(m, line), fetch(v, line);
      if constexpr (!std::is_same_v<T, Acc<T>>) fetch(master, line);
    }
  }

  // Of an array of half the bytes every second line is the first half of one.
  template <class U>
  [[gnu::always_inline]] static void fetch(const U* array, int64_t line) {
    constexpr int kToWrite = 1, kIntoSecondLevel = 2;
    if (sizeof(U) == sizeof(float) || line % 2 == 0)
      __builtin_prefetch(array + line * kLine, kToWrite, kIntoSecondLevel);
  }
};

// The update of one group's matrix, kMr rows at a time.
template <class T, class M>
class GroupUpdate {
 public:
  GroupUpdate(const FactoredAdamW<T, M>& args, const AdamWUpdate<T, M>& update, int64_t group)
      : args_(args.update),
        update_(update),
        product_(args.gradient, group),
        n_(args.gradient.n),
        k_(args.gradient.k),
        begin_(group * n_ * k_) {
    thread_local Scratch<float> scratch;
    made_.grad = scratch.reserve(2 * kMr * k_);
    making_.grad = made_.grad + kMr * k_;
  }

  void rows(int64_t first, int64_t last) {
    const bool overlap = product_.steps() >= kShort;
    for (int64_t i = first; i < last; i += kMr) {
      product_.go_to_row(i);
      making_.begin = begin_ + i * k_;
      making_.count = std::min(kMr, n_ - i) * k_;
      overlap ? next_block_while_updating() : next_block();
      std::swap(made_, making_);
    }
    update_(made_.begin, made_.count, made_.grad);
  }

 private:
  // kMr rows of the gradient, and the elements that they are for.
  struct Block {
    float* grad = nullptr;  // [kMr, k]
    int64_t begin = 0, count = 0;
  };

  void next_block() {
    update_(made_.begin, made_.count, made_.grad);
    for (int64_t j = 0; j < k_; j += kNr) product_.tile_at(j, making_.grad);
  }

  // Piece by piece: memory fetches what a tile will be used for while it is made, and is never idle.
  void next_block_while_updating() {
    for (int64_t j = 0, at = 0; j < k_; j += kNr, at += kPiece) {
      tile_and_fetch(j, making_.begin + at);
      if (at < made_.count) update_(made_.begin + at, std::min(kPiece, made_.count - at), made_.grad + at);
    }
  }

  void tile_and_fetch(int64_t j, int64_t begin) const {
    const int64_t steps = product_.steps();
    if (steps >= kLines)
      product_.tile_at(j, making_.grad, fetch<1>(begin, steps >= 2 * kLines));
    else
      product_.tile_at(j, making_.grad, fetch<2>(begin));
  }

  template <int kPerStep>
  FetchPiece<T, M, kPerStep> fetch(int64_t begin, int log2_steps = 0) const {
    const Acc<T>* const master = args_.master == nullptr ? nullptr : args_.master + begin;
    return {args_.p + begin, master, args_.m + begin, args_.v + begin, log2_steps};
  }

  const AdamW<T, M>& args_;
  const AdamWUpdate<T, M>& update_;
  FactorProduct<T> product_;
  int64_t n_, k_, begin_;
  Block made_, making_;
};

// Of a gradient of zeros.
template <class T, class M>
void update_by_zeros(const AdamWUpdate<T, M>& update, int64_t begin, int64_t n) {
  static constexpr float kZeros[512] = {};
  constexpr int64_t kCount = std::size(kZeros);
  for (int64_t i = 0; i < n; i += kCount) update(begin + i, std::min(kCount, n - i), kZeros);
}

// Rows [first, last) of a group's matrix.
template <class T, class M>
void update_rows(const FactoredAdamW<T, M>& args, const AdamWUpdate<T, M>& update, int64_t group,
                 int64_t first, int64_t last) {
  const GradientFactors<T>& f = args.gradient;
  const int64_t rows = f.rows(group), begin = (group * f.n + first) * f.k, count = (last - first) * f.k;
  if (rows > kFewRows)
    update(begin, count, args.update.grad + begin);
  else if (rows == 0)
    update_by_zeros(update, begin, count);
  else
    GroupUpdate<T, M>(args, update, group).rows(first, last);
}

}  // namespace

template <class T, class M>
void run(Cpu, const FactoredAdamW<T, M>& args) {
  const GradientFactors<T>& f = args.gradient;
  if (f.groups == 0 || f.n * f.k == 0) return;
  const AdamWUpdate<T, M> update(args.update);
  // Enough parts of groups for every thread to have several.
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  const int64_t parts = threads == 1 ? 1 : (4 * threads + f.groups - 1) / f.groups;
  const int64_t blocks = whole_panels(f.n, kMr) / kMr;
#pragma omp parallel for schedule(dynamic)
  for (int64_t task = 0; task < f.groups * parts; ++task) {
    const int64_t group = task / parts, part = task % parts;
    const int64_t first = blocks * part / parts * kMr,
                  last = std::min(blocks * (part + 1) / parts * kMr, f.n);
    if (first < last) update_rows(args, update, group, first, last);
  }
}

template void run(Cpu, const FactoredAdamW<float>&);
template void run(Cpu, const FactoredAdamW<float, BF16>&);
template void run(Cpu, const FactoredAdamW<BF16>&);
template void run(Cpu, const FactoredAdamW<BF16, BF16>&);

}  // namespace switchyard::kernels
