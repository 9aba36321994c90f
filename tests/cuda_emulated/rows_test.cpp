// RMSNorm, norm and rotary embedding, SwiGLU, embedding, cross-entropy.
#include <cstring>
#include <numeric>

#include "kernels/attention_last.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/half_logits.h"
#include "kernels/norm_rope.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"
#include "tests/cuda_emulated/sides.h"

namespace switchyard::kernels {
namespace {

template <class T>
class RowKernels : public CudaKernelsOf<T> {};
TYPED_TEST_SUITE(RowKernels, FloatTypes);

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{0, 16}, {1, 1}, {3, 7}, {5, 64}, {70, 24}, {2, 1100}, {1, 2180}};

TYPED_TEST(RowKernels, RmsNormForward) {
  using T = TypeParam;
  for (auto [rows, cols] : kShapes)
    expect_same([rows = rows, cols = cols](auto& bench) {
      run(bench.on(), RmsNormForward<T>{.y = bench.template output<T>(rows * cols),
                                        .rstd = bench.template output<Acc<T>>(rows),
                                        .x = bench.input(random_vector<T>(rows * cols, 1)),
                                        .w = bench.input(random_vector<T>(cols, 2)),
                                        .rows = rows,
                                        .cols = cols,
                                        .eps = Acc<T>(1e-5)});
    });
}

TYPED_TEST(RowKernels, RmsNormBackward) {
  using T = TypeParam;
  using A = Acc<T>;
  for (auto [rows, cols] : kShapes)
    expect_same([rows = rows, cols = cols](auto& bench) {
      run(bench.on(),
          RmsNormBackward<T>{.dx = bench.template output<T>(rows * cols),
                             .dw = bench.template output<A>(random_vector<A>(cols, 5)),
                             .dy = bench.input(random_vector<T>(rows * cols, 1)),
                             .x = bench.input(random_vector<T>(rows * cols, 2)),
                             .w = bench.input(random_vector<T>(cols, 3)),
                             .rstd = bench.input(random_vector<A>(rows, 4, 0.5, 2)),
                             .workspace = bench.input(std::vector<A>(RmsNormBackward<T>::kBlocks * cols)),
                             .rows = rows,
                             .cols = cols});
    });
}

// Wide rows that a team keeps in registers, more rows than blocks, and the residual stream.
constexpr Shape kResidualShapes[] = {{3, 7}, {270, 24}, {5, 1096}, {3, 2056}, {1, 9000}};

TYPED_TEST(RowKernels, RmsNormOfASum) {
  using T = TypeParam;
  using A = Acc<T>;
  for (auto [rows, cols] : kResidualShapes) {
    if (rows > 100 && !std::is_same_v<T, float>) continue;  // seconds in the emulator
    expect_same([rows = rows, cols = cols](auto& bench) {
      const T* w = bench.input(random_vector<T>(cols, 2));
      run(bench.on(), RmsNormForward<T>{.y = bench.template output<T>(rows * cols),
                                        .rstd = bench.template output<A>(rows),
                                        .x = bench.input(random_vector<T>(rows * cols, 1)),
                                        .w = w,
                                        .rows = rows,
                                        .cols = cols,
                                        .eps = A(1e-5),
                                        .delta = bench.input(random_vector<T>(rows * cols, 6)),
                                        .sum = bench.template output<T>(rows * cols)});
      run(bench.on(),
          RmsNormBackward<T>{.dx = bench.template output<T>(rows * cols),
                             .dw = bench.template output<A>(random_vector<A>(cols, 5)),
                             .dy = bench.input(random_vector<T>(rows * cols, 1)),
                             .x = bench.input(random_vector<T>(rows * cols, 2)),
                             .w = w,
                             .rstd = bench.input(random_vector<A>(rows, 4, 0.5, 2)),
                             .workspace = bench.input(std::vector<A>(RmsNormBackward<T>::kBlocks * cols)),
                             .rows = rows,
                             .cols = cols,
                             .dsum = bench.input(random_vector<T>(rows * cols, 7))});
    });
  }
}

TYPED_TEST(RowKernels, Swiglu) {
  using T = TypeParam;
  for (auto [rows, cols] : kShapes)
    expect_same([rows = rows, cols = cols](auto& bench) {
      const T* x = bench.input(random_vector<T>(rows * 2 * cols, 1, -4, 4));
      run(bench.on(), SwigluForward<T>{bench.template output<T>(rows * cols), x, rows, cols});
      run(bench.on(), SwigluBackward<T>{bench.template output<T>(rows * 2 * cols),
                                        bench.input(random_vector<T>(rows * cols, 2)), x, rows, cols});
    });
}

struct Heads {
  int64_t tokens, seq, heads, kv_heads, head_dim, rotary_dim;
};
constexpr Heads kHeads[] = {{0, 4, 2, 1, 16, 16},
                            {6, 3, 2, 1, 16, 16},
                            {5, 5, 3, 2, 6, 4},
                            {4, 2, 4, 2, 64, 32},
                            {9, 9, 1, 1, 10, 2},
                            {2, 2, 1, 1, 288, 288},
                            // several blocks of tokens, the last not full; heads that take turns in a team
                            {101, 7, 12, 12, 64, 64},
                            {77, 40, 8, 2, 128, 128},
                            {70, 70, 9, 3, 96, 32},
                            {3, 2, 2, 1, 1024, 512},
                            // more tokens than blocks of the weight gradients
                            {515, 100, 64, 1, 34, 34}};

template <class T, bool kNorm, class B>
void norm_rope(B& bench, const Heads& h) {
  using A = Acc<T>;
  const int64_t row = (h.heads + 2 * h.kv_heads) * h.head_dim, normed = h.tokens * (h.heads + h.kv_heads);
  const T* x = bench.input(random_vector<T>(h.tokens * row, 1));
  const T* q = kNorm ? bench.input(random_vector<T>(h.head_dim, 2)) : nullptr;
  const T* k = kNorm ? bench.input(random_vector<T>(h.head_dim, 3)) : nullptr;
  const A* cos = bench.input(random_vector<A>(h.seq * h.rotary_dim / 2, 4));
  const A* sin = bench.input(random_vector<A>(h.seq * h.rotary_dim / 2, 5));
  run(bench.on(),
      NormRopeForward<T>{bench.template output<T>(h.tokens * row),
                         kNorm ? bench.template output<A>(normed) : nullptr, x, q, k, cos, sin, h.tokens,
                         h.seq, h.heads, h.kv_heads, h.head_dim, h.rotary_dim, A(1e-6)});
  run(bench.on(),
      NormRopeBackward<T>{bench.template output<T>(h.tokens * row),
                          kNorm ? bench.template output<A>(random_vector<A>(h.head_dim, 6)) : nullptr,
                          kNorm ? bench.template output<A>(random_vector<A>(h.head_dim, 7)) : nullptr,
                          bench.input(random_vector<T>(h.tokens * row, 8)), x, q, k,
                          bench.input(random_vector<A>(normed, 9, 0.5, 2)), cos, sin,
                          bench.input(std::vector<A>(NormRopeBackward<T>::kBlocks * 2 * h.head_dim)),
                          h.tokens, h.seq, h.heads, h.kv_heads, h.head_dim, h.rotary_dim});
}

// The gradient with a norm as well, the values without.
template <class T, bool kNorm, class B>
void norm_rope_in_place(B& bench, const Heads& h) {
  using A = Acc<T>;
  const int64_t row = (h.heads + 2 * h.kv_heads) * h.head_dim, normed = h.tokens * (h.heads + h.kv_heads);
  const A* cos = bench.input(random_vector<A>(h.seq * h.rotary_dim / 2, 4));
  const A* sin = bench.input(random_vector<A>(h.seq * h.rotary_dim / 2, 5));
  T* y = bench.template output<T>(random_vector<T>(h.tokens * row, 1));
  run(bench.on(), NormRopeForward<T>{y, nullptr, y, nullptr, nullptr, cos, sin, h.tokens, h.seq, h.heads,
                                     h.kv_heads, h.head_dim, h.rotary_dim, A(1e-6)});
  const T* w = kNorm ? bench.input(random_vector<T>(h.head_dim, 2)) : nullptr;
  T* dy = bench.template output<T>(random_vector<T>(h.tokens * row, 8));
  run(bench.on(),
      NormRopeBackward<T>{dy, kNorm ? bench.template output<A>(random_vector<A>(h.head_dim, 6)) : nullptr,
                          kNorm ? bench.template output<A>(random_vector<A>(h.head_dim, 7)) : nullptr, dy,
                          kNorm ? bench.input(random_vector<T>(h.tokens * row, 3)) : nullptr, w, w,
                          bench.input(random_vector<A>(normed, 9, 0.5, 2)), cos, sin,
                          bench.input(std::vector<A>(NormRopeBackward<T>::kBlocks * 2 * h.head_dim)),
                          h.tokens, h.seq, h.heads, h.kv_heads, h.head_dim, h.rotary_dim});
}

TYPED_TEST(RowKernels, RopeInPlace) {
  for (const Heads& h : kHeads) {
    expect_same([&](auto& bench) { norm_rope_in_place<TypeParam, true>(bench, h); });
    expect_same([&](auto& bench) { norm_rope_in_place<TypeParam, false>(bench, h); });
  }
}

TYPED_TEST(RowKernels, RopeWithNorm) {
  for (const Heads& h : kHeads) expect_same([&](auto& bench) { norm_rope<TypeParam, true>(bench, h); });
}

TYPED_TEST(RowKernels, RopeWithoutNorm) {
  for (const Heads& h : kHeads) expect_same([&](auto& bench) { norm_rope<TypeParam, false>(bench, h); });
}

TYPED_TEST(RowKernels, Embedding) {
  using T = TypeParam;
  constexpr int64_t kVocab = 7;
  for (auto [tokens, cols] : kShapes) {
    const auto ids = random_indices(tokens, 1, 0, kVocab - 1);
    std::vector<int32_t> order(ids.size()), sorted(ids.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return ids[a] < ids[b]; });
    std::transform(order.begin(), order.end(), sorted.begin(), [&](int i) { return ids[i]; });
    expect_same([&, tokens = tokens, cols = cols](auto& bench) {
      run(bench.on(), EmbeddingForward<T>{bench.template output<T>(tokens * cols),
                                          bench.input(random_vector<T>(kVocab * cols, 2)), bench.input(ids),
                                          tokens, cols});
      run(bench.on(),
          EmbeddingBackward<T>{bench.template output<Acc<T>>(random_vector<Acc<T>>(kVocab * cols, 3)),
                               bench.input(random_vector<T>(tokens * cols, 4)), bench.input(sorted),
                               bench.input(order), tokens, cols});
    });
  }
}

template <class T, bool kGradient>
void cross_entropy(int64_t rows, int64_t vocab) {
  using A = Acc<T>;
  const auto target = random_indices(rows, 2, -1, static_cast<int32_t>(vocab) - 1);
  expect_same([&](auto& bench) {
    run(bench.on(), CrossEntropy<T>{bench.template output<A>(rows),
                                    kGradient ? bench.template output<T>(rows * vocab) : nullptr,
                                    bench.input(random_vector<A>(rows * vocab, 1, -9, 9)),
                                    bench.input(target), rows, vocab, A(0.25)});
  });
}

TYPED_TEST(RowKernels, CrossEntropy) {
  for (auto [rows, vocab] : kShapes) cross_entropy<TypeParam, true>(rows, vocab);
}

TYPED_TEST(RowKernels, CrossEntropyWithoutGradient) {
  for (auto [rows, vocab] : kShapes) cross_entropy<TypeParam, false>(rows, vocab);
}

TEST_F(CudaKernels, CrossEntropyMayWriteItsGradientOverTheLogits) {
  const int64_t rows = 3, vocab = 77;
  const auto target = random_indices(rows, 2, 0, vocab - 1);
  expect_same([&](auto& bench) {
    float* z = bench.template output<float>(random_vector<float>(rows * vocab, 1));
    run(bench.on(),
        CrossEntropy<float>{bench.template output<float>(rows), z, z, bench.input(target), rows, vocab, 1});
  });
}

// Against the softmax of the same numbers in float32. Columns past the vocabulary hold large numbers.
void half_cross_entropy(int64_t rows, int64_t vocab, bool gradient) {
  SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(vocab));
  const int64_t stride = half_logits_stride(vocab);
  const auto values = random_vector<float>(rows * vocab, 1, -9, 9);
  std::vector<float> rounded;
  std::vector<uint8_t> halves(rows * stride * 2, 0x7b);  // bytes, because rows have to be aligned
  for (int64_t i = 0; i < rows * vocab; ++i) {
    const F16 half(values[i]);
    rounded.push_back(static_cast<float>(half));
    std::memcpy(&halves[2 * (i / vocab * stride + i % vocab)], &half, 2);
  }
  const auto target = random_indices(rows, 2, -1, static_cast<int32_t>(vocab) - 1);
  expect_same([&](auto& bench) {
    const int32_t* targets = bench.input(target);
    float* loss = bench.template output<float>(rows);
    BF16* dlogits = gradient ? bench.template output<BF16>(rows * vocab) : nullptr;
    if constexpr (std::is_same_v<decltype(bench.on()), Cuda>) {
      auto* z = reinterpret_cast<F16*>(bench.input(halves));
      auto* dz = gradient ? reinterpret_cast<BF16*>(z) : nullptr;
      run(bench.on(), HalfCrossEntropy{loss, dz, z, targets, rows, vocab, 0.25f});
      for (int64_t r = 0; gradient && r < rows; ++r)
        run(bench.on(), Cast<BF16, BF16>{dlogits + r * vocab, dz + r * stride, vocab});
    } else {
      run(bench.on(), CrossEntropy<BF16>{loss, dlogits, bench.input(rounded), targets, rows, vocab, 0.25f});
    }
  });
}

TEST_F(CudaKernels, HalfCrossEntropy) {
  for (const bool gradient : {false, true}) {
    half_cross_entropy(5, 64, gradient);
    half_cross_entropy(3, 77, gradient);
    half_cross_entropy(2, 17001, gradient);
    half_cross_entropy(1, 110003, gradient);  // too long for shared memory: read twice
    half_cross_entropy(4, 1, gradient);
  }
}

TEST(F16, RoundsToNearestEven) {
  const auto back = [](float x) { return static_cast<float>(F16(x)); };
  EXPECT_EQ(back(1.0f + 0x1p-11f), 1.0f);
  EXPECT_EQ(back(1.0f + 0x1.8p-10f), 1.0f + 0x1p-9f);
  EXPECT_EQ(back(-2049.0f), -2048.0f);
  EXPECT_EQ(back(65519.0f), 65504.0f);
  EXPECT_EQ(back(65520.0f), INFINITY);
  EXPECT_EQ(back(0x1p-24f), 0x1p-24f);
  EXPECT_EQ(back(0x1p-26f), 0.0f);
  EXPECT_EQ(back(0x1.ff8p-15f), 0x1.ff8p-15f);  // the largest denormal
  EXPECT_EQ(F16(0x1.ffep-15f).bits, 0x0400);    // rounds up into the normal numbers
  EXPECT_TRUE(std::isnan(back(NAN)));
}

TYPED_TEST(RowKernels, AttentionOfTheLast) {
  using T = TypeParam;
  for (const AttentionShape& s :
       {AttentionShape{1, 1, 2, 1, 8, 0.4f}, AttentionShape{1, 5, 3, 3, 40, 0.3f},
        AttentionShape{1, 37, 4, 2, 100, 0.1f}, AttentionShape{1, 70, 2, 1, 256, 0.06f}})
    expect_same([&](auto& bench) {
      run(bench.on(), AttentionLast<T>{bench.template output<T>(s.heads * s.head_dim),
                                       bench.input(random_vector<T>(s.seq * s.row(), 1)), s});
    });
}

}  // namespace
}  // namespace switchyard::kernels
