#include "kernels/grouped_matmul.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/matrix_gemm.h"
#include "kernels/cpu/packed_gemm.h"
#include "kernels/cpu/padded_gemm.h"
#include "kernels/cpu/scratch.h"

namespace switchyard::kernels {
namespace {

// One task is a block of one group's result, computed by one thread.
struct Task {
  int64_t group;
  int64_t first, last;  // rows of y, or rows of dW[group]
  int64_t cost;         // proportional to the operations
};

template <class T>
bool is_packed() {
  if constexpr (std::is_same_v<T, double>)
    return false;
  else
    return has_packed_gemm<T>();
}

// Rows of a block. oneDNN's bits may depend on a product's size, so its blocks are the same for every number
// of threads; the packed product's do not, and one thread packs a group's weights once.
int64_t row_block(int64_t rows, bool packed) {
  constexpr int64_t kRowBlock = 256;
  if (!packed) return kRowBlock;
  const int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  return threads == 1 ? rows : std::clamp<int64_t>(rows / (2 * threads), kRowBlock, 1024);
}

// Cuts `rows` into equal blocks of at most row_block(), each a multiple of 16 and of a panel but the last.
void append_blocks(std::vector<Task>& tasks, int64_t group, int64_t begin, int64_t rows, int64_t cost_of_row,
                   bool packed) {
  if (rows == 0) return;
  const int64_t most = row_block(rows, packed), blocks = (rows + most - 1) / most;
  const int64_t step = round_up((rows + blocks - 1) / blocks, packed ? std::lcm(16, kMr) : 16);
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t last = std::min(r + step, rows);
    tasks.push_back({group, begin + r, begin + last, (last - r) * cost_of_row});
  }
}

// The longest first, so that a crowded expert does not leave the other threads idle.
void sort(std::vector<Task>& tasks) {
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.cost > b.cost; });
}

// Runs body(task, next) for every task; `next` is the one that this thread probably has next.
template <class F>
void for_each_task(const std::vector<Task>& tasks, const F& body) {
  const auto count = static_cast<int64_t>(tasks.size());
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; ++i) {
    const int64_t next = std::min(i + omp_get_num_threads(), count - 1);
    body(tasks[static_cast<size_t>(i)], tasks[static_cast<size_t>(next)]);
  }
}

std::vector<Task>& empty_task_list() {
  thread_local std::vector<Task> tasks;
  tasks.clear();
  return tasks;
}

bool is_among(GroupsOf which, int64_t rows) {
  return which == GroupsOf::kAnyRows || (which == GroupsOf::kFewRows) == (rows <= kFewRows);
}

// The squares of every group's gradient: collected kMr rows at a time while products run, so that threads may
// divide the rows as they like.
template <class C>
class SquareSums {
 public:
  template <class T>
  explicit SquareSums(const GroupedMatmulWeight<T, C>& args) : of_group_(square_sum_count(args.n)) {
    thread_local Scratch<float> scratch;
    if (args.squares != nullptr) sums_ = scratch.reserve(args.groups * of_group_);
  }
  bool wanted() const { return sums_ != nullptr; }
  float* at(const Task& task) const { return sums_ + task.group * of_group_ + task.first / kMr; }

  // Of a group whose gradient is dw [n].
  double total(int64_t group, const C* dw, int64_t n) const {
    const float* sums = sums_ + group * of_group_;
    const double total = std::accumulate(sums, sums + of_group_, 0.0);
    if (total > 1e-30 && std::isfinite(total)) return total;
    // Beyond float32's range, or all zeros.
    return std::accumulate(dw, dw + n, 0.0, [](double sum, double x) { return sum + x * x; });
  }

 private:
  int64_t of_group_;
  float* sums_ = nullptr;
};

template <class T, class C>
void store_squares(const GroupedMatmulWeight<T, C>& args, const SquareSums<C>& squares) {
  if (!squares.wanted()) return;
  const int64_t size = args.n * args.k;
  for (int64_t g = 0; g < args.groups; ++g) {
    const int64_t rows = args.offsets[g + 1] - args.offsets[g];
    const bool empty = rows == 0;
    if (!is_among(args.which, rows) || (empty && args.accumulate)) continue;
    args.squares[g] = empty ? 0.0 : squares.total(g, args.dw + g * size, size);
  }
}

// Brings all weights up to date, and says so, where products do not.
template <class T>
bool is_updated(const GroupedMatmul<T>& args) {
  if (args.update == nullptr) return true;
  if (args.transpose_w && updates_on_the_way<T>(Cpu{})) return false;
  args.update->update_all();
  return true;
}

// The groups of all tasks in their order; those of none are brought up to date.
template <class T>
std::span<const int64_t> reading_order(const GroupedMatmul<T>& args, const std::vector<Task>& tasks) {
  thread_local std::vector<int64_t> order;
  order.clear();
  for (const Task& task : tasks) order.push_back(task.group);
  for (int64_t g = 0; g < args.groups; ++g)
    if (args.offsets[g] == args.offsets[g + 1]) args.update->finish(g);
  return order;
}

}  // namespace

template <class T>
void run(Cpu, const GroupedMatmul<T>& args) {
  if (args.n == 0) return;
  const bool updated = is_updated(args);
  std::vector<Task>& tasks = empty_task_list();
  for (int64_t g = 0; g < args.groups; ++g)
    append_blocks(tasks, g, args.offsets[g], args.offsets[g + 1] - args.offsets[g], args.n * args.k,
                  is_packed<T>());
  sort(tasks);
  std::optional<UpdateAhead> update;
  if (!updated) update.emplace(*args.update, reading_order(args, tasks), args.n * args.k);
  const bool stream = leaves_the_cache<T>(args.offsets[args.groups] * args.n);
  for_each_task(tasks, [&](const Task& task, const Task& next) {
    const Matmul<T, T> p{.c = args.y + task.first * args.n,
                         .a = args.x + task.first * args.k,
                         .b = args.w + task.group * args.n * args.k,
                         .m = task.last - task.first,
                         .n = args.n,
                         .k = args.k,
                         .transpose_b = args.transpose_w,
                         .lda = args.k,
                         .ldb = args.transpose_w ? args.k : args.n,
                         .ldc = args.n,
                         .stream = stream,
                         .next_a = args.x + next.first * args.k,
                         .next_b = args.w + next.group * args.n * args.k};
    if constexpr (std::is_same_v<T, BF16>)
      if (!is_packed<T>() && args.k > 0) return gemm_of_padded_rows(p);
    if constexpr (!std::is_same_v<T, double>)
      if (update) return packed_gemm<PanelElement<T>>(p, *update, (&task - tasks.data()) * args.n * args.k);
    run(Cpu{}, p);
  });
}

template <class T, class C>
void run(Cpu, const GroupedMatmulWeight<T, C>& args) {
  if (args.k == 0) return;
  const SquareSums<C> squares(args);
  std::vector<Task>& tasks = empty_task_list();
  for (int64_t g = 0; g < args.groups; ++g) {
    const int64_t rows = args.offsets[g + 1] - args.offsets[g];
    if (is_among(args.which, rows)) append_blocks(tasks, g, 0, args.n, rows * args.k, is_packed<T>());
  }
  sort(tasks);
  constexpr int64_t kStreamFrom = 4 << 20;  // elements: more than a core's part of the third-level cache
  for_each_task(tasks, [&](const Task& task, const Task& next) {
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
                         .ldc = args.k,
                         .stream = args.groups * args.n * args.k >= kStreamFrom ||
                                   leaves_the_cache<C>((task.last - task.first) * args.k),
                         .next_a = args.dy + args.offsets[next.group] * args.n + next.first,
                         .next_b = args.x + args.offsets[next.group] * args.k};
    if constexpr (std::is_same_v<T, BF16>)
      if (!is_packed<T>() && rows > 0) return gemm_of_padded_depth(p);
    if constexpr (!std::is_same_v<T, double>)
      if (squares.wanted() && rows > 0) return packed_gemm<PanelElement<T>>(p, squares.at(task));
    run(Cpu{}, p);
  });
  store_squares(args, squares);
}

// Those with matrix registers do not.
template <class T>
bool sums_squares(Cpu) {
  return is_packed<T>() && !(std::is_same_v<T, BF16> && has_matrix_gemm());
}

// Several threads may meet in one group.
template <class T>
bool updates_on_the_way(Cpu) {
  return sums_squares<T>(Cpu{}) && (omp_in_parallel() || omp_get_max_threads() == 1);
}

template void run(Cpu, const GroupedMatmul<float>&);
template void run(Cpu, const GroupedMatmul<BF16>&);
template void run(Cpu, const GroupedMatmul<double>&);
template void run(Cpu, const GroupedMatmulWeight<float, float>&);
template void run(Cpu, const GroupedMatmulWeight<BF16, float>&);
template void run(Cpu, const GroupedMatmulWeight<double, double>&);
template bool sums_squares<float>(Cpu);
template bool sums_squares<BF16>(Cpu);
template bool sums_squares<double>(Cpu);
template bool updates_on_the_way<float>(Cpu);
template bool updates_on_the_way<BF16>(Cpu);
template bool updates_on_the_way<double>(Cpu);

}  // namespace switchyard::kernels
