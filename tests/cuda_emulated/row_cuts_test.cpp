// Weight gradients whose rows are cut among blocks (kernels/cuda/row_cuts.cuh). In the emulator loops stand
// for the tensor cores; cuts, parts and their sum are the GPU's.
#include "kernels/cuda/handles.h"
#include "kernels/cuda/one_group.h"
#include "tests/cuda_emulated/sides.h"

namespace switchyard::kernels {
namespace {

struct Shape {
  int64_t m, n, rows;
  int blocks;
};

// dw after the product: in parts, or by the CPU.
std::vector<float> weight_gradient(const Shape& s, bool accumulate, bool in_parts) {
  const auto dy = random_vector<BF16>(s.rows * s.m, 1), x = random_vector<BF16>(s.rows * s.n, 2);
  auto dw = random_vector<float>(s.m * s.n, 3);
  Matmul<BF16, float> p{dw.data(), dy.data(), x.data(), s.m, s.n, s.rows, true, false, accumulate};
  if (!in_parts) {
    run(Cpu{}, p);
    return dw;
  }
  CudaHandles handles(nullptr);
  const DeviceArray<float> workspace(std::vector<float>(1 << 20, NAN), 0), c(dw, 0);
  const DeviceArray<BF16> a(dy, 0), b(x, 0);
  handles.multiprocessors = s.blocks;
  allow_row_cuts(handles, workspace.data());
  p.c = c.data();
  p.a = a.data();
  p.b = b.data();
  EXPECT_TRUE(run_in_parts(Cuda{nullptr, &handles}, p));
  return c.values();
}

class RowCuts : public CudaKernels {
 protected:
  void SetUp() override {
    CudaKernels::SetUp();
    if (IsSkipped()) return;
    CudaHandles handles(nullptr);
    if (!allow_row_cuts(handles, nullptr))
      GTEST_SKIP() << "rows are cut for Hopper's kernel alone, and this GPU is none";
  }
};

// Blocks for one cut, for several, with some to spare, and with too few of those.
TEST_F(RowCuts, AddUpToTheProduct) {
  const Shape shapes[] = {{136, 264, 600, 4}, {136, 264, 600, 5},  {136, 264, 603, 6}, {136, 264, 1000, 7},
                          {8, 136, 1030, 1},  {8, 136, 1030, 3},   {264, 136, 777, 4}, {264, 136, 1111, 5},
                          {264, 136, 200, 3}, {520, 136, 1601, 8}, {640, 520, 300, 17}};
  for (const Shape& s : shapes) {
    SCOPED_TRACE(std::to_string(s.m) + " x " + std::to_string(s.n) + ", " + std::to_string(s.rows) +
                 " rows, " + std::to_string(s.blocks) + " blocks");
    for (const bool accumulate : {false, true}) {
      const auto expected = weight_gradient(s, accumulate, false),
                 actual = weight_gradient(s, accumulate, true);
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 2e-4) << "element " << i;
      EXPECT_EQ(weight_gradient(s, accumulate, true), actual) << "other bits when repeated";
    }
  }
}

// Fewer blocks than tiles, too few rows, or a layout that the tensor cores do not take.
TEST_F(RowCuts, AreNotForEveryShape) {
  for (const Shape& s : {Shape{264, 264, 900, 5}, Shape{136, 264, 64, 8}, Shape{12, 264, 900, 8}}) {
    CudaHandles handles(nullptr);
    const DeviceArray<float> workspace(std::vector<float>(1 << 20), 0), c(std::vector<float>(s.m * s.n), 0);
    const DeviceArray<BF16> a(std::vector<BF16>(s.rows * s.m), 0), b(std::vector<BF16>(s.rows * s.n), 0);
    handles.multiprocessors = s.blocks;
    allow_row_cuts(handles, workspace.data());
    Matmul<BF16, float> p{c.data(), a.data(), b.data(), s.m, s.n, s.rows, true};
    EXPECT_FALSE(run_in_parts(Cuda{nullptr, &handles}, p)) << s.m << " x " << s.n << ", " << s.blocks;
  }
}

}  // namespace
}  // namespace switchyard::kernels
