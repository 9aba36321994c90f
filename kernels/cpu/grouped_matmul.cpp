#include "kernels/grouped_matmul.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/packed_gemm.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// One task is a block of one group's result, computed by one thread.
struct Task {
  int64_t group;
  int64_t first, last;  // rows of y, or rows of dW[group]
  int64_t cost;         // proportional to the operations
};

// Rows of a block. oneDNN's bits may depend on a product's size, so its blocks are the same for every number
// of threads; the packed product's do not, and one thread packs a group's weights once.
int64_t row_block(int64_t rows) {
  constexpr int64_t kRowBlock = 256;
  if (!has_packed_gemm()) return kRowBlock;
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  return threads == 1 ? rows : std::clamp<int64_t>(rows / (2 * threads), kRowBlock, 1024);
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Cuts `rows` into equal blocks of at most row_block(), each a multiple of 16 but the last.
void append_blocks(std::vector<Task>& tasks, int64_t group, int64_t begin, int64_t rows,
                   int64_t cost_of_row) {
  if (rows == 0) return;
  const int64_t most = row_block(rows), blocks = (rows + most - 1) / most;
  const int64_t step = round_up((rows + blocks - 1) / blocks, 16);
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t last = std::min(r + step, rows);
    tasks.push_back({group, begin + r, begin + last, (last - r) * cost_of_row});
  }
}

// Runs body(task) for every task, the longest first, so that a crowded expert does not leave the other
// threads idle.
template <class F>
void for_each_task(std::vector<Task>& tasks, const F& body) {
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.cost > b.cost; });
  const auto count = static_cast<int64_t>(tasks.size());
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; ++i) body(tasks[static_cast<size_t>(i)]);
}

std::vector<Task>& empty_task_list() {
  thread_local std::vector<Task> tasks;
  tasks.clear();
  return tasks;
}

// oneDNN's bf16 products are made for one shape each (kernels/cpu/gemm.h), so a ragged count of rows is
// rounded up to a multiple of kPad by copying the rows and adding zeros.
constexpr int64_t kPad = 32;

const BF16* padded(Scratch<BF16>& scratch, const BF16* x, int64_t ld, int64_t rows, int64_t cols) {
  const int64_t all = round_up(rows, kPad);
  BF16* copy = scratch.reserve(all * cols);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(x + r * ld, cols, copy + r * cols);
  std::fill_n(copy + rows * cols, (all - rows) * cols, BF16());
  return copy;
}

void padded_rows(Matmul<BF16, BF16> p) {
  thread_local Scratch<BF16> x_scratch, y_scratch;
  const int64_t rows = p.m;
  if (rows % kPad == 0) return gemm(p);
  BF16* const y = p.c;
  p.a = padded(x_scratch, p.a, p.lda, rows, p.k);
  p.m = round_up(rows, kPad);
  p.c = y_scratch.reserve(p.m * p.n);
  gemm(p);
  std::copy_n(p.c, rows * p.n, y);
}

// The sum over the rows of a group, in pieces of kDepth rows; only the last piece may be ragged.
void padded_depth(Matmul<BF16, float> p) {
  constexpr int64_t kDepth = 1024;
  thread_local Scratch<BF16> dy_scratch, x_scratch;
  int64_t left = p.k;
  for (; left >= kDepth; left -= kDepth, p.a += kDepth * p.lda, p.b += kDepth * p.ldb, p.accumulate = true) {
    p.k = kDepth;
    gemm(p);
  }
  if (left == 0) return;
  p.k = round_up(left, kPad);
  if (left % kPad != 0) {
    p.a = padded(dy_scratch, p.a, p.lda, left, p.m);
    p.b = padded(x_scratch, p.b, p.ldb, left, p.n);
    p.lda = p.m;
    p.ldb = p.n;
  }
  gemm(p);
}

}  // namespace

template <class T>
void run(Cpu, const GroupedMatmul<T>& args) {
  if (args.n == 0) return;
  std::vector<Task>& tasks = empty_task_list();
  for (int64_t g = 0; g < args.groups; ++g)
    append_blocks(tasks, g, args.offsets[g], args.offsets[g + 1] - args.offsets[g], args.n * args.k);
  for_each_task(tasks, [&](const Task& task) {
    const Matmul<T, T> p{.c = args.y + task.first * args.n,
                         .a = args.x + task.first * args.k,
                         .b = args.w + task.group * args.n * args.k,
                         .m = task.last - task.first,
                         .n = args.n,
                         .k = args.k,
                         .transpose_b = args.transpose_w,
                         .lda = args.k,
                         .ldb = args.transpose_w ? args.k : args.n,
                         .ldc = args.n};
    if constexpr (std::is_same_v<T, BF16>)
      if (has_bf16_gemm() && args.k > 0) return padded_rows(p);
    run(Cpu{}, p);
  });
}

template <class T, class C>
void run(Cpu, const GroupedMatmulWeight<T, C>& args) {
  if (args.k == 0) return;
  std::vector<Task>& tasks = empty_task_list();
  for (int64_t g = 0; g < args.groups; ++g)
    append_blocks(tasks, g, 0, args.n, (args.offsets[g + 1] - args.offsets[g]) * args.k);
  for_each_task(tasks, [&](const Task& task) {
    const int64_t first_row = args.offsets[task.group], rows = args.offsets[task.group + 1] - first_row;
    const Matmul<T, C> p{.c = args.dw + (task.group * args.n + task.first) * args.k,
                         .a = args.dy + first_row * args.n + task.first,
                         .b = args.x + first_row * args.k,
                         .m = task.last - task.first,
                         .n = args.k,
                         .k = rows,
                         .transpose_a = true,
                         .accumulate = args.accumulate,
                         .lda = args.n,
                         .ldb = args.k,
                         .ldc = args.k};
    if constexpr (std::is_same_v<T, BF16>)
      if (has_bf16_gemm() && rows > 0) return padded_depth(p);
    run(Cpu{}, p);
  });
}

template void run(Cpu, const GroupedMatmul<float>&);
template void run(Cpu, const GroupedMatmul<BF16>&);
template void run(Cpu, const GroupedMatmul<double>&);
template void run(Cpu, const GroupedMatmulWeight<float, float>&);
template void run(Cpu, const GroupedMatmulWeight<BF16, float>&);
template void run(Cpu, const GroupedMatmulWeight<double, double>&);

}  // namespace switchyard::kernels
