#include "kernels/elementwise.h"
#include "kernels/split.h"

#include "kernels/adamw.h"
#include "tests/cuda_emulated/sides.h"

namespace switchyard::kernels {
namespace {

template <class T>
class Elementwise : public CudaKernelsOf<T> {};
TYPED_TEST_SUITE(Elementwise, FloatTypes);

constexpr int64_t kSizes[] = {0, 1, 5, 8, 1000, 4099};

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{0, 8}, {1, 1}, {3, 5}, {130, 40}, {4, 1064}};

TYPED_TEST(Elementwise, Axpby) {
  using T = TypeParam;
  for (int64_t n : kSizes)
    expect_same([=](auto& bench) {
      const T* a = bench.input(random_vector<T>(n, 1));
      T* b = bench.template output<T>(random_vector<T>(n, 2));
      run(bench.on(), Axpby<T>{bench.template output<T>(n), a, nullptr, n, 3});
      run(bench.on(), Axpby<T>{b, a, b, n, 2, Acc<T>(-0.5)});
    });
}

template <class To, class From>
void cast() {
  for (int64_t n : kSizes)
    expect_same([=](auto& bench) {
      run(bench.on(),
          Cast<To, From>{bench.template output<To>(n), bench.input(random_vector<From>(n, 1)), n});
    });
}

TYPED_TEST(Elementwise, Cast) {
  cast<TypeParam, float>();
  cast<TypeParam, BF16>();
  cast<TypeParam, double>();
}

TYPED_TEST(Elementwise, Accumulate) {
  using T = TypeParam;
  for (int64_t n : kSizes)
    expect_same([=](auto& bench) {
      run(bench.on(), Accumulate<T>{bench.template output<Acc<T>>(random_vector<Acc<T>>(n, 1)),
                                    bench.input(random_vector<T>(n, 2)), n});
    });
}

TYPED_TEST(Elementwise, ScaleBy) {
  using T = TypeParam;
  for (int64_t n : kSizes)
    expect_same([=](auto& bench) {
      run(bench.on(), ScaleBy<T>{bench.template output<T>(random_vector<T>(n, 1)),
                                 bench.input(std::vector<Acc<T>>{Acc<T>(0.3)}), n});
    });
}

TYPED_TEST(Elementwise, AddBias) {
  using T = TypeParam;
  for (auto [rows, cols] : kShapes)
    expect_same([rows = rows, cols = cols](auto& bench) {
      T* y = bench.template output<T>(random_vector<T>(rows * cols, 1));
      run(bench.on(), AddBias<T>{y, y, bench.input(random_vector<T>(cols, 2)), rows, cols});
    });
}

TYPED_TEST(Elementwise, ColumnSum) {
  using T = TypeParam;
  for (auto [rows, cols] :
       {Shape{0, 8}, {1, 1}, {3, 5}, {130, 40}, {4, 1064}, {17000, 1}})  // the last by all blocks
    expect_same([rows = rows, cols = cols](auto& bench) {
      run(bench.on(), ColumnSum<T>{bench.template output<Acc<T>>(random_vector<Acc<T>>(cols, 1)),
                                   bench.input(random_vector<T>(rows * cols, 2)),
                                   bench.input(std::vector<Acc<T>>(64 * cols)), rows, cols});
    });
}

TYPED_TEST(Elementwise, SigmoidGate) {
  using T = TypeParam;
  for (auto [rows, cols] : kShapes)
    expect_same([rows = rows, cols = cols](auto& bench) {
      const T* x = bench.input(random_vector<T>(rows * cols, 1));
      const T* g = bench.input(random_vector<T>(rows, 2, -3, 3));
      run(bench.on(), SigmoidGateForward<T>{bench.template output<T>(rows * cols), x, g, rows, cols});
      run(bench.on(),
          SigmoidGateBackward<T>{bench.template output<T>(rows * cols), bench.template output<T>(rows),
                                 bench.input(random_vector<T>(rows * cols, 3)), x, g, rows, cols});
    });
}

TYPED_TEST(Elementwise, Sum) {
  using T = TypeParam;
  for (int64_t n : {0, 1, 37, 4099, 16384, 16387})  // the last by many blocks
    for (bool square : {false, true})
      expect_same([=](auto& bench) {
        double* sum = bench.template output<float>(std::vector<double>{3});
        run(bench.on(), Sum<T>{.sum = sum,
                               .x = bench.input(random_vector<T>(n, 1, 0, 1)),
                               .workspace = bench.input(std::vector<double>(256)),
                               .n = n,
                               .scale = 0.5,
                               .square = square,
                               .accumulate = square});
      });
}

template <class T, class M = Acc<T>>
void adamw() {
  using A = Acc<T>;
  for (int64_t n : kSizes)
    expect_same([=](auto& bench) {
      run(bench.on(),
          AdamW<T, M>{
              .p = bench.template output<T>(random_vector<T>(n, 1)),
              .master = std::is_same_v<T, A> ? nullptr : bench.template output<A>(random_vector<A>(n, 2)),
              .m = bench.template output<M>(random_vector<M>(n, 3)),
              .v = bench.template output<M>(random_vector<M>(n, 4, 0, 1)),
              .grad = bench.input(random_vector<A>(n, 5)),
              .clip = bench.input(std::vector<A>{A(0.5)}),
              .n = n,
              .step = 3,
              .lr = 1e-2,
              .beta1 = 0.9,
              .beta2 = 0.95,
              .eps = 1e-8,
              .weight_decay = 0.1});
    });
}

TYPED_TEST(Elementwise, AdamW) { adamw<TypeParam>(); }

TEST_F(CudaKernels, AdamWWithMomentsInBf16) {
  adamw<float, BF16>();
  adamw<BF16, BF16>();
}

TEST_F(CudaKernels, SplitIntoParts) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{0, 8}, {1, 1}, {3, 7}, {5, 64}, {1, 1000}}) {
    expect_same([rows = rows, cols = cols](auto& bench) {
      using enum Part;
      run(bench.on(), Split{bench.template output<BF16>(4 * rows * cols),
                            bench.input(random_vector<float>(rows * cols, 1)),
                            rows,
                            cols,
                            4,
                            {kHi, kMid, kLo, kHi}});
    });
  }
}

TEST_F(CudaKernels, SumOfParts) {
  for (const bool accumulate : {false, true}) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{0, 8}, {1, 1}, {3, 7}, {5, 64}, {1, 1000}}) {
      expect_same([rows = rows, cols = cols, accumulate](auto& bench) {
        run(bench.on(),
            SumParts{bench.template output<float>(random_vector<float>(rows * cols, 2)),
                     bench.input(random_vector<float>(3 * rows * cols, 1)), rows, cols, accumulate});
      });
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
