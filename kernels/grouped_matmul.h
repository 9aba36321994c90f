// Products of ragged groups of rows, one weight matrix per group (the experts of an MoE layer).
//
//   rows offsets[g] .. offsets[g+1]-1 belong to group g; a group may be empty; rows at and past
//   offsets[groups] (and before offsets[0]) belong to no group: they are neither read nor written.
//
//   forward, data gradient:   y[r, :] = x[r, :] W[g]^T, or x[r, :] W[g] without transpose_w
//   weight gradient:          dW[g] (+)= dy_g^T x_g; an empty group gives zero, or adds nothing
#pragma once

#include "kernels/dtype.h"
#include "kernels/late_update.h"

namespace switchyard::kernels {

template <class T>
struct GroupedMatmul {
  T* y;                        // [rows, n]
  const T* x;                  // [rows, k]
  const T* w;                  // [groups, n, k] if transpose_w, else [groups, k, n]
  const int64_t* offsets;      // [groups + 1], in the memory of the executor
  int64_t groups, rows, n, k;  // rows: the buffer's; offsets[groups] <= rows
  bool transpose_w = true;
  // The same on the host, where the caller knows them (CUDA: optional).
  const int64_t* host_offsets = nullptr;
  const LateUpdate* update = nullptr;  // of w, which has to be up to date when it is read (CPU)
};

// Groups of few rows may be left out: their weight gradients can stay factors (kernels/gradient_factors.h).
inline constexpr int64_t kFewRows = 96;
enum class GroupsOf : uint8_t { kAnyRows, kFewRows, kManyRows };

template <class T, class C = Acc<T>>
struct GroupedMatmulWeight {
  C* dw;                   // [groups, n, k]
  const T* dy;             // [rows, n]
  const T* x;              // [rows, k]
  const int64_t* offsets;  // [groups + 1]
  int64_t groups, rows, n, k;
  bool accumulate = false;
  const int64_t* host_offsets = nullptr;
  // [groups], or null: the sum of the squares of what dw[g] is then. Only where sums_squares<T>(executor). A
  // group that adds nothing leaves its sum as it is.
  double* squares = nullptr;
  GroupsOf which = GroupsOf::kAnyRows;  // others' dw and squares are left as they are (CPU)
};

// Instantiated for float, BF16, double.
template <class T>
void run(Cpu, const GroupedMatmul<T>&);
template <class T>
void run(Cuda, const GroupedMatmul<T>&);

// Instantiated for (float, float), (BF16, float), (double, double).
template <class T, class C>
void run(Cpu, const GroupedMatmulWeight<T, C>&);
template <class T, class C>
void run(Cuda, const GroupedMatmulWeight<T, C>&);

// Whether the weight gradient's product sums up squares on the way, which saves reading it again.
template <class T>
bool sums_squares(Cpu);

// Whether a product of transpose_w sees to its `update` while it runs; else that is made first.
template <class T>
bool updates_on_the_way(Cpu);

}  // namespace switchyard::kernels
