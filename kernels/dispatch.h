// Sorting tokens onto tracks: capacity, the permutation by expert, and the two row movements that use it.
//
// A "pair" is one (token, choice); its number is token * top_k + choice. A dropped pair has expert -1.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

enum class DropPolicy : uint8_t {
  kProbs,     // an expert keeps its pairs with the highest weights; ties: lower choice, then lower token
  kPosition,  // an expert keeps the first pairs: all first choices before second choices, tokens in order
};

// Rows by expert; within an expert by pair number (so: by token). Nothing depends on thread scheduling.
struct SortByExpert {
  int64_t* counts;        // [experts] kept pairs
  int64_t* offsets;       // [experts + 1] prefix sums of counts
  int32_t* position;      // [pairs] the pair's row, or -1 if dropped
  int32_t* source;        // [pairs] the row's pair; -1 at and past offsets[experts]
  const int32_t* expert;  // [pairs] -1 .. experts-1
  int64_t pairs, experts;
  void* workspace;                              // workspace_bytes(pairs, experts)
  static constexpr int64_t kBlockPairs = 1024;  // that a block of threads counts
  static int64_t workspace_bytes(int64_t pairs, int64_t experts) {
    return 8 * ((pairs + kBlockPairs - 1) / kBlockPairs + 1) * experts + 4 * pairs + 256;
  }
};
void run(Cpu, const SortByExpert&);
void run(Cuda, const SortByExpert&);

// What PROBS compares: the weight rounded to 16 significant bits. Tokens that are mathematically equal (a run
// of one token at the start of a sequence) differ by rounding alone; which of them stays must not hang on the
// order of a sum somewhere.
template <class A>
SWITCHYARD_HOST_DEVICE A compared_weight(A weight) {
  using Bits = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;
  constexpr int kCut = sizeof(A) == 8 ? 53 - 16 : 24 - 16;
  if (weight != weight) return weight;
  const Bits bits = std::bit_cast<Bits>(weight);
  return std::bit_cast<A>(static_cast<Bits>((bits + (Bits{1} << (kCut - 1))) >> kCut << kCut));
}

// Every expert keeps at most `capacity` pairs; the others' expert becomes -1.
template <class A>
struct DropOverCapacity {
  int32_t* expert;  // [tokens, top_k], changed in place
  const A* weight;  // [tokens, top_k]
  int64_t tokens, top_k, experts, capacity;
  DropPolicy policy;
  void* workspace;  // workspace_bytes(tokens, top_k, experts)
  static int64_t workspace_bytes(int64_t tokens, int64_t top_k, int64_t experts) {
    // A permutation by expert (counts, offsets, position, source) and what making it takes.
    return 16 * tokens * top_k + 16 * (experts + 1) + 256 +
           SortByExpert::workspace_bytes(tokens * top_k, experts);
  }
};

// y[r, :] = x[index[r] / divisor, :]; a row with index -1 becomes 0. With divisor = top_k this copies tokens
// to rows.
template <class T>
struct GatherRows {
  T* y;  // [rows, cols]
  const T* x;
  const int32_t* index;  // [rows]
  int64_t rows, cols, divisor = 1;
};

// y[t, :] = sum over choices j, in order, of weight[t, j] * x[position[t, j], :]; position -1 adds 0. Summed
// in Acc<T>, rounded once. weight null: a plain sum, the exact transpose of GatherRows.
template <class T>
struct CombineForward {
  T* y;                     // [tokens, cols]
  const T* x;               // [rows, cols]
  const int32_t* position;  // [tokens, top_k]
  const Acc<T>* weight;     // [tokens, top_k] or null
  int64_t tokens, top_k, cols;
};

// dx[position[t, j], :] = weight[t, j] * dy[t, :],   dweight[t, j] = dot(dy[t, :], x[position[t, j], :]), 0
// if dropped. Walks rows: dx[r] comes from pair source[r]; a row with source -1 becomes 0.
template <class T>
struct CombineBackward {
  T* dx;                    // [rows, cols]
  Acc<T>* dweight;          // [tokens, top_k] or null
  const T* dy;              // [tokens, cols]
  const T* x;               // [rows, cols]
  const int32_t* position;  // [tokens, top_k]
  const int32_t* source;    // [rows]
  const Acc<T>* weight;     // [tokens, top_k]
  int64_t tokens, top_k, rows, cols;
};

// Instantiated for float, double.
template <class A>
void run(Cpu, const DropOverCapacity<A>&);
template <class A>
void run(Cuda, const DropOverCapacity<A>&);

#define SWITCHYARD_DECLARE_RUN(Args) \
  template <class T>                 \
  void run(Cpu, const Args<T>&);     \
  template <class T>                 \
  void run(Cuda, const Args<T>&);

// Instantiated for float, BF16, double.
SWITCHYARD_DECLARE_RUN(GatherRows)
SWITCHYARD_DECLARE_RUN(CombineForward)
SWITCHYARD_DECLARE_RUN(CombineBackward)
#undef SWITCHYARD_DECLARE_RUN

}  // namespace switchyard::kernels
