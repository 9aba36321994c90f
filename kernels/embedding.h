// Embedding:   y[t, :] = table[id[t], :].   The gradient sums, for every id, the rows of its tokens in token
// order (no atomics: the same bits every time), from the ids sorted by the caller.
#pragma once

#include "kernels/dtype.h"

namespace switchyard::kernels {

template <class T>
struct EmbeddingForward {
  T* y;                // [tokens, cols]
  const T* table;      // [vocab, cols]
  const int32_t* ids;  // [tokens], 0 <= id < vocab (the caller has checked)
  int64_t tokens, cols;
};

template <class T>
struct EmbeddingBackward {
  Acc<T>* dtable;             // [vocab, cols], added to
  const T* dy;                // [tokens, cols]
  const int32_t* sorted_ids;  // [tokens], ascending
  const int32_t* order;       // [tokens]: sorted_ids[i] = ids[order[i]], stable
  int64_t tokens, cols;
};

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const EmbeddingForward<T>&);
template <class T>
void run(Cuda, const EmbeddingForward<T>&);
template <class T>
void run(Cpu, const EmbeddingBackward<T>&);
template <class T>
void run(Cuda, const EmbeddingBackward<T>&);

}  // namespace switchyard::kernels
