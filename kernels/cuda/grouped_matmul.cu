#include "kernels/grouped_matmul.h"

#include <limits>

#include "kernels/cuda/grouped_simt.cuh"
#include "kernels/cuda/handles.h"

namespace switchyard::kernels {

namespace {

int to_int(int64_t n) {
  CHECK(n >= 0 && n <= std::numeric_limits<int>::max(), "a dimension of ", n);
  return static_cast<int>(n);
}

template <Form kForm, class T, class C>
void run_form(Cuda exec, const GroupedProblem<T, C>& p) {
  CHECK(exec.handles, "no handles");
  CHECK(p.groups <= kMaxGroups && most_tiles<kForm>(p, 64, 64) <= std::numeric_limits<int>::max(), p.groups,
        " groups of ", p.m, " x ", p.n, " x ", p.k, " in ", p.rows, " rows");
  simt::launch<kForm>(p, exec.handles->multiprocessors, exec.stream);
}

}  // namespace

template <class T>
void run(Cuda exec, const GroupedMatmul<T>& args) {
  if (args.groups == 0 || args.rows == 0 || args.n == 0) return;
  to_int(args.rows);
  const GroupedProblem<T, T> p{
      args.y, args.x,         args.w,         args.offsets, args.rows, to_int(args.groups),
      0,      to_int(args.n), to_int(args.k), false};
  if (args.transpose_w) {
    run_form<Form::kForward>(exec, p);
  } else {
    run_form<Form::kData>(exec, p);
  }
}

template <class T, class C>
void run(Cuda exec, const GroupedMatmulWeight<T, C>& args) {
  if (args.groups == 0 || args.n == 0 || args.k == 0) return;
  to_int(args.rows);
  run_form<Form::kWeight>(
      exec, GroupedProblem<T, C>{args.dw, args.dy, args.x, args.offsets, args.rows, to_int(args.groups),
                                 to_int(args.n), to_int(args.k), 0, args.accumulate});
}

template void run(Cuda, const GroupedMatmul<float>&);
template void run(Cuda, const GroupedMatmul<BF16>&);
template void run(Cuda, const GroupedMatmul<double>&);
template void run(Cuda, const GroupedMatmulWeight<float, float>&);
template void run(Cuda, const GroupedMatmulWeight<BF16, float>&);
template void run(Cuda, const GroupedMatmulWeight<double, double>&);

}  // namespace switchyard::kernels
