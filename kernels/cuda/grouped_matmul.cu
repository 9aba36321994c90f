#include "kernels/grouped_matmul.h"

#include <limits>

#include "kernels/cuda/grouped_mma.cuh"
#include "kernels/cuda/grouped_simt.cuh"
#include "kernels/cuda/grouped_wgmma.cuh"
#include "kernels/cuda/handles.h"
#include "kernels/cuda/one_group.h"
#include "kernels/cuda/row_cuts.cuh"
#include "kernels/gate_up.h"
#include "kernels/half_logits.h"

namespace switchyard::kernels {

namespace {

int to_int(int64_t n) {
  CHECK(n >= 0 && n <= std::numeric_limits<int>::max(), "a dimension of ", n);
  return static_cast<int>(n);
}

// Rows are copied in pieces of 16 bytes.
template <class C>
bool fits_tensor_cores(const GroupedProblem<BF16, C>& p) {
  const auto address =
      reinterpret_cast<uintptr_t>(p.a) | reinterpret_cast<uintptr_t>(p.b) | reinterpret_cast<uintptr_t>(p.c);
  return p.m % 8 == 0 && p.c_stride() % 8 == 0 && p.k % 8 == 0 && address % 16 == 0;
}

// Narrow products waste too much of a tile of 256 columns; a tensor map has no empty dimension.
template <Form kForm, class C>
bool fits_wgmma(Cuda exec, const GroupedProblem<BF16, C>& p) {
  const int64_t fixed = kForm == Form::kWeight ? p.m : p.k;
  return exec.handles->runs_wgmma() && fits_tensor_cores(p) && p.n > 128 && fixed > 0 && p.rows > 0;
}

// Where the kernel is the faster one beside another way that there is: tiles for a few turns of all
// multiprocessors.
template <Form kForm, Ending kEnding = Ending::kStore>
bool run_if_large(Cuda exec, const GroupedProblem<BF16, BF16>& p) {
  constexpr int kTurns = 3;
  to_int(p.rows);
  const int multiprocessors = exec.handles->multiprocessors;
  const int64_t tiles = int64_t{ceil_div(p.rows, hopper::kTileM)} * ceil_div(p.n, hopper::kTileN);
  if (p.groups > kMaxGroups || tiles < kTurns * multiprocessors || !fits_wgmma<kForm>(exec, p)) return false;
  hopper::launch<kForm, kEnding>(p, multiprocessors, exec.stream);
  return true;
}

template <Form kForm, class T, class C>
void run_form(Cuda exec, const GroupedProblem<T, C>& p) {
  CHECK(exec.handles, "no handles");
  CHECK(p.groups <= kMaxGroups && most_tiles<kForm>(p, 64, 64) <= std::numeric_limits<int>::max(), p.groups,
        " groups of ", p.m, " x ", p.n, " x ", p.k, " in ", p.rows, " rows");
  if constexpr (std::is_same_v<T, BF16>) {
    const int multiprocessors = exec.handles->multiprocessors;
    if (fits_wgmma<kForm>(exec, p)) return hopper::launch<kForm>(p, multiprocessors, exec.stream);
    if (fits_tensor_cores(p)) return mma::launch<kForm>(p, multiprocessors, exec.stream);
  }
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

void run(Cuda exec, const HalfLogits& a) {
  if (a.rows == 0) return;
  GroupedProblem<BF16, F16> p{a.z, a.h, a.w, nullptr, a.rows, 1, 0, to_int(a.vocab), to_int(a.hidden), false};
  p.ldc = half_logits_stride(a.vocab);
  run_form<Form::kForward>(exec, p);
}

bool run_as_one_group(Cuda exec, const Matmul<BF16>& p) {
  const bool dense = (p.lda == 0 || p.lda == p.k) && (p.ldb == 0 || p.ldb == (p.transpose_b ? p.k : p.n));
  if (p.transpose_a || p.accumulate || !dense) return false;
  GroupedProblem<BF16, BF16> g{p.c, p.a, p.b, nullptr, p.m, 1, 0, to_int(p.n), to_int(p.k), false};
  g.ldc = p.ldc;
  return p.transpose_b ? run_if_large<Form::kForward>(exec, g) : run_if_large<Form::kData>(exec, g);
}

bool run_in_parts(Cuda exec, const Matmul<BF16, float>& p) {
  using hopper::RowCuts;
  const CudaHandles& handles = *exec.handles;
  const int blocks = handles.multiprocessors;
  const bool dense =
                 (p.lda == 0 || p.lda == p.m) && (p.ldb == 0 || p.ldb == p.n) && (p.ldc == 0 || p.ldc == p.n),
             aligned = reinterpret_cast<uintptr_t>(p.c) % 16 == 0;
  if (!p.transpose_a || p.transpose_b || !dense || !aligned || !RowCuts::fits(p.m, p.n, p.k, blocks))
    return false;
  const GroupedProblem<BF16, float> g{
      static_cast<float*>(handles.workspace), p.a, p.b, nullptr, p.k, 1, to_int(p.m), to_int(p.n), 0, false};
  const RowCuts cuts(g.m, g.n, g.rows, blocks);
  const int64_t bytes = cuts.parts() * RowCuts::kPartElements * int64_t{sizeof(float)};
  if (!fits_wgmma<Form::kWeight>(exec, g) || bytes > CudaHandles::kWorkspaceBytes) return false;
  hopper::launch<Form::kWeight, Ending::kPart>(g, blocks, exec.stream);
  constexpr int kRows = 4;  // of a tile per block
  launch_kernel(hopper::add_parts_kernel, dim3(cuts.tiles, hopper::kTileM / kRows),
                dim3(kRows * hopper::kTileN / 4), 0, exec.stream, p.c, g.c, cuts, g.m, g.n, p.accumulate);
  return true;
}

bool run_fused(Cuda exec, const GateUp& a) {
  GroupedProblem<BF16, BF16> p{a.gate_up,       a.x,         a.w,  a.offsets, a.rows, to_int(a.groups), 0,
                               to_int(2 * a.n), to_int(a.k), false};
  p.gated = a.y;
  if (a.n % 8 != 0 || reinterpret_cast<uintptr_t>(a.y) % 16 != 0) return false;
  return run_if_large<Form::kForward, Ending::kGate>(exec, p);
}

template void run(Cuda, const GroupedMatmul<float>&);
template void run(Cuda, const GroupedMatmul<BF16>&);
template void run(Cuda, const GroupedMatmul<double>&);
template void run(Cuda, const GroupedMatmulWeight<float, float>&);
template void run(Cuda, const GroupedMatmulWeight<BF16, float>&);
template void run(Cuda, const GroupedMatmulWeight<double, double>&);

}  // namespace switchyard::kernels
