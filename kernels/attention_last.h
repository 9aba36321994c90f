// Attention of a sequence's last token alone, for text that is made token by token: the rows of the tokens
// before are kept, and only one query is new. The formulas and the packed rows are those of attention.h,
// without documents.
#pragma once

#include "kernels/attention.h"

namespace switchyard::kernels {

template <class T>
struct AttentionLast {
  T* o;                  // [heads * head_dim]
  const T* qkv;          // [shape.seq, shape.row()]
  AttentionShape shape;  // batch is 1
};

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const AttentionLast<T>&);
template <class T>
void run(Cuda, const AttentionLast<T>&);

}  // namespace switchyard::kernels
