#include "kernels/matmul.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/matrix_gemm.h"
#include "kernels/cpu/matrix_registers.h"
#include "kernels/cpu/packed_gemm.h"
#include "kernels/cpu/padded_gemm.h"
#include "tests/kernels/values.h"

namespace switchyard::kernels {
namespace {

struct Shape {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  int64_t lda = 0, ldb = 0, ldc = 0;
};

// Owns the three matrices of a product whose sizes and strides are given.
template <class T, class C>
struct Case {
  Matmul<T, C> p;
  std::vector<T> a, b;
  std::vector<C> c;

  explicit Case(const Shape& s)
      : p{nullptr,       nullptr,       nullptr,      s.m,   s.n,   s.k,
          s.transpose_a, s.transpose_b, s.accumulate, s.lda, s.ldb, s.ldc} {
    a = random_values<T>(p.transpose_a ? p.k * lda() : p.m * lda(), 1);
    b = random_values<T>(p.transpose_b ? p.n * ldb() : p.k * ldb(), 2);
    c = random_values<C>(p.m * ldc(), 3);
    p.a = a.data();
    p.b = b.data();
    p.c = c.data();
  }
  int64_t lda() const { return p.lda > 0 ? p.lda : p.transpose_a ? p.m : p.k; }
  int64_t ldb() const { return p.ldb > 0 ? p.ldb : p.transpose_b ? p.k : p.n; }
  int64_t ldc() const { return p.ldc > 0 ? p.ldc : p.n; }

  void fill_strides() { p.lda = lda(), p.ldb = ldb(), p.ldc = ldc(); }

  // What c must hold after the run, the gaps between its rows included.
  std::vector<double> expected() const {
    std::vector<double> result(c.size());
    for (size_t i = 0; i < c.size(); ++i) result[i] = to_double(c[i]);
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t j = 0; j < p.n; ++j) {
        double sum = p.accumulate ? result[i * ldc() + j] : 0;
        for (int64_t l = 0; l < p.k; ++l)
          sum += to_double(a[p.transpose_a ? l * lda() + i : i * lda() + l]) *
                 to_double(b[p.transpose_b ? j * ldb() + l : l * ldb() + j]);
        result[i * ldc() + j] = sum;
      }
    return result;
  }
  void expect_right() {
    const std::vector<double> right = expected();
    run(Cpu{}, p);
    expect_close(c, right);
  }
};

template <class Types>
class MatmulTest : public ::testing::Test {};
using Cases = ::testing::Types<Case<float, float>, Case<BF16, BF16>, Case<BF16, float>, Case<double, double>>;
TYPED_TEST_SUITE(MatmulTest, Cases);

TYPED_TEST(MatmulTest, EveryTransposeOfOddSizes) {
  for (int flags = 0; flags < 8; ++flags) {
    Shape shape{.m = 37, .n = 53, .k = 29};
    shape.transpose_a = flags & 1;
    shape.transpose_b = flags & 2;
    shape.accumulate = flags & 4;
    TypeParam(shape).expect_right();
  }
}

TYPED_TEST(MatmulTest, RowsFurtherApartThanTheirLength) {
  for (int flags = 0; flags < 4; ++flags) {
    Shape shape{.m = 9, .n = 11, .k = 13, .lda = 17, .ldb = 19, .ldc = 23};
    shape.transpose_a = flags & 1;
    shape.transpose_b = flags & 2;
    TypeParam(shape).expect_right();
  }
}

TYPED_TEST(MatmulTest, LargerThanEveryInternalBlock) {
  for (bool accumulate : {false, true}) {
    TypeParam({.m = 259, .n = 517, .k = 11, .accumulate = accumulate}).expect_right();
    TypeParam({.m = 3, .n = 5, .k = 2051, .accumulate = accumulate}).expect_right();
    TypeParam({.m = 1101, .n = 75, .k = 1100, .transpose_a = true, .accumulate = accumulate}).expect_right();
    TypeParam({.m = 70, .n = 45, .k = 1030, .transpose_b = true, .accumulate = accumulate}).expect_right();
  }
}

TYPED_TEST(MatmulTest, MoreColumnsThanABlock) {
  TypeParam({.m = 7, .n = 2100, .k = 600, .ldc = 2105}).expect_right();
}

TYPED_TEST(MatmulTest, OneRowAndOneColumn) {
  TypeParam({.m = 1, .n = 33, .k = 65, .transpose_b = true}).expect_right();
  TypeParam({.m = 33, .n = 1, .k = 65}).expect_right();
}

TYPED_TEST(MatmulTest, NoRowsOrColumnsLeaveTheResultAlone) {
  TypeParam({.m = 0, .n = 3, .k = 4}).expect_right();
  TypeParam({.m = 3, .n = 0, .k = 4}).expect_right();
}

TYPED_TEST(MatmulTest, AnEmptySumIsZero) {
  TypeParam({.m = 3, .n = 2, .k = 0, .ldc = 5}).expect_right();
  TypeParam({.m = 3, .n = 2, .k = 0, .accumulate = true}).expect_right();
}

TYPED_TEST(MatmulTest, ARepeatedRunGivesTheSameBits) {
  TypeParam first({.m = 130, .n = 70, .k = 90}), second = first;
  second.p.a = second.a.data();
  second.p.b = second.b.data();
  second.p.c = second.c.data();
  run(Cpu{}, first.p);
  run(Cpu{}, second.p);
  EXPECT_TRUE(same_bits(first.c, second.c));
}

// A token's expert must not care how many other tokens meet it. n: ragged, and whole lines, whose rows a
// product of few rows reads in place.
template <class T, class C>
void expect_same_rows_in_every_product() {
  if (!has_packed_gemm<T>()) GTEST_SKIP() << "the products are oneDNN's here, which do not promise this";
  for (int flags = 0; flags < 4; ++flags)
    for (int64_t n : {50, 160})
      for (int64_t k : {511, 2200}) {
        const Shape shape{
            .m = 300, .n = n, .k = k, .transpose_b = (flags & 1) != 0, .accumulate = (flags & 2) != 0};
        Case<T, C> all(shape), few = all;
        run(Cpu{}, all.p);
        few.p.a = few.a.data() + 200 * k;
        few.p.b = few.b.data();
        few.p.c = few.c.data() + 200 * n;
        few.p.m = 9;
        run(Cpu{}, few.p);
        EXPECT_EQ(std::memcmp(few.p.c, all.c.data() + 200 * n, static_cast<size_t>(9 * n) * sizeof(C)), 0)
            << flags << ", n " << n << ", k " << k;
      }
}

// Whole tiles and ragged ones, one part of the sum and several, rows on cache lines and beside them.
template <class T, class C>
void expect_same_bits_streamed() {
  for (int64_t k : {40, 1100})
    for (int64_t ldc : {128, 113}) {
      Case<T, C> plain({.m = 69, .n = 80, .k = k, .transpose_a = true}), streamed = plain;
      std::vector<C> memory(69 * 128 + 32), expected(69 * 128);
      size_t offset = 0;
      plain.p.c = expected.data();
      plain.p.ldc = streamed.p.ldc = ldc;
      while (reinterpret_cast<uintptr_t>(streamed.p.c = memory.data() + offset) % 64 != 0) ++offset;
      streamed.p.stream = true;
      run(Cpu{}, plain.p);
      run(Cpu{}, streamed.p);
      EXPECT_EQ(std::memcmp(streamed.p.c, expected.data(), expected.size() * sizeof(C)), 0)
          << "k " << k << ", ldc " << ldc;
    }
}

TEST(PackedGemmTest, AStreamedResultHasTheSameBits) {
  expect_same_bits_streamed<float, float>();
  expect_same_bits_streamed<BF16, float>();
  expect_same_bits_streamed<BF16, BF16>();
}

TEST(PackedGemmTest, ARowHasTheSameBitsInEveryProduct) { expect_same_rows_in_every_product<float, float>(); }
TEST(PackedGemmTest, ARowOfBf16HasTheSameBitsInEveryProduct) {
  expect_same_rows_in_every_product<BF16, BF16>();
}

// Whatever this processor would take: bf16 by pairs, widened to float32, and by the plain twin of matrix
// registers.
template <class E>
struct ByPanels {
  static void multiply(const auto& p) { packed_gemm<E>(p); }
};
struct ByPlainMatrices {
  static void multiply(const auto& p) { matrix_gemm<PlainRegisters>(p); }
};

template <class By>
struct Bf16ProductsTest : ::testing::Test {};
using Ways = ::testing::Types<ByPanels<float>, ByPanels<Pair>, ByPlainMatrices>;
TYPED_TEST_SUITE(Bf16ProductsTest, Ways);

template <class By, class C>
void expect_right_by(const Shape& shape) {
  Case<BF16, C> c(shape);
  const std::vector<double> right = c.expected();
  c.fill_strides();
  By::multiply(c.p);
  expect_close(c.c, right);
}

TYPED_TEST(Bf16ProductsTest, EveryTransposeOfOddSizes) {
  for (int flags = 0; flags < 8; ++flags)
    for (int64_t k : {1, 2, 29, 64, 1031}) {
      const Shape shape{.m = 37,
                        .n = 53,
                        .k = k,
                        .transpose_a = (flags & 1) != 0,
                        .transpose_b = (flags & 2) != 0,
                        .accumulate = (flags & 4) != 0};
      expect_right_by<TypeParam, float>(shape);
      expect_right_by<TypeParam, BF16>(shape);
    }
}

TYPED_TEST(Bf16ProductsTest, FewRowsByWeightsOfWholeLines) {
  for (int flags = 0; flags < 4; ++flags)
    for (int64_t m : {5, 64})
      for (int64_t k : {64, 1030, 2100})
        expect_right_by<TypeParam, BF16>(
            {.m = m, .n = 96, .k = k, .transpose_b = (flags & 1) != 0, .accumulate = (flags & 2) != 0});
}

TYPED_TEST(Bf16ProductsTest, RowsFurtherApartThanTheirLength) {
  for (int flags = 0; flags < 4; ++flags)
    expect_right_by<TypeParam, float>({.m = 70,
                                       .n = 75,
                                       .k = 97,
                                       .transpose_a = (flags & 1) != 0,
                                       .transpose_b = (flags & 2) != 0,
                                       .lda = 101,
                                       .ldb = 103,
                                       .ldc = 79});
}

TYPED_TEST(Bf16ProductsTest, LargerThanEveryInternalBlock) {
  expect_right_by<TypeParam, float>({.m = 300, .n = 40, .k = 70});
  expect_right_by<TypeParam, float>({.m = 3, .n = 1100, .k = 70, .transpose_b = true});
  expect_right_by<TypeParam, BF16>({.m = 600, .n = 40, .k = 1030});
}

// So that what is true of the twin is true of the registers.
template <class C>
void expect_same_bits_as_the_twin(const Shape& shape) {
  Case<BF16, C> c(shape), twin = c;
  for (Case<BF16, C>* one : {&c, &twin}) {
    one->p = {one->c.data(), one->a.data(), one->b.data(), shape.m, shape.n, shape.k};
    one->p.accumulate = shape.accumulate;
    one->fill_strides();
  }
  matrix_gemm(c.p);
  matrix_gemm<PlainRegisters>(twin.p);
  EXPECT_TRUE(same_bits(c.c, twin.c));
}

TEST(MatrixGemmTest, TheProcessorGivesTheBitsOfItsTwin) {
  if (!has_matrix_gemm()) GTEST_SKIP() << "this processor multiplies no matrices of bf16";
  for (bool accumulate : {false, true})
    for (int64_t k : {29, 64, 1031}) {
      expect_same_bits_as_the_twin<float>({.m = 69, .n = 53, .k = k, .accumulate = accumulate});
      expect_same_bits_as_the_twin<BF16>({.m = 69, .n = 53, .k = k, .accumulate = accumulate});
    }
}

// The products of bf16 that oneDNN makes in a program that is not compiled for its processor.
TEST(PaddedGemmTest, RaggedRowsAndSums) {
  if (!has_bf16_unit()) GTEST_SKIP() << "oneDNN multiplies bf16 on processors with AVX512_BF16 only";
  for (int64_t rows : {1, 32, 45}) {
    Case<BF16, BF16> y({.m = rows, .n = 24, .k = 40, .transpose_b = true, .lda = 40, .ldb = 40, .ldc = 24});
    const std::vector<double> right = y.expected();
    gemm_of_padded_rows(y.p);
    expect_close(y.c, right);
  }
  for (int64_t rows : {1, 32, 45, 1024, 1030})
    for (bool accumulate : {false, true}) {
      Case<BF16, float> dw({.m = 24,
                            .n = 40,
                            .k = rows,
                            .transpose_a = true,
                            .accumulate = accumulate,
                            .lda = 24,
                            .ldb = 40,
                            .ldc = 40});
      const std::vector<double> right = dw.expected();
      gemm_of_padded_depth(dw.p);
      expect_close(dw.c, right);
    }
}

TYPED_TEST(MatmulTest, SeveralThreadsAtOnce) {
  std::vector<TypeParam> cases;
  for (int64_t i = 0; i < 4; ++i) cases.emplace_back(Shape{.m = 40 + i, .n = 30, .k = 20 + i});
  std::vector<std::thread> threads;
  for (auto& one : cases)
    threads.emplace_back([&one] {
      omp_set_num_threads(1);
      for (int repeat = 0; repeat < 20; ++repeat) run(Cpu{}, one.p);
    });
  for (auto& thread : threads) thread.join();
  for (const auto& one : cases) expect_close(one.c, one.expected());
}

}  // namespace
}  // namespace switchyard::kernels
