// What a ParameterStore keeps of its parameters, and in which type.
#include "core/nn/parameters.h"

#include <gtest/gtest.h>

#include "core/optim/adamw.h"

namespace switchyard {
namespace {

using Kind = ParameterStore::Kind;

struct Store : ParameterStore {
  Store(DType dtype, DType moments) {
    add({.name = "w", .shape = {2, 3}, .pieces = {{"w", 0, {2, 3}}}, .dtype = dtype});
    SegmentOptions options;
    options.moments = moments;
    materialize(Device::kCpu, 1, true, true, options);
  }
  const Segment& segment() const { return segments()[0]; }
  void write_all(Kind kind, const std::vector<float>& values) {
    write(parameters()[0], parameters()[0].spec.pieces[0], kind, values);
  }
  std::vector<float> read_all(const Tensor& run) const {
    return read_piece(run, parameters()[0], parameters()[0].spec.pieces[0]);
  }
};

TEST(ParameterStoreTest, MomentsHaveTheTypeAskedForButOfFloat64) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
    for (const DType moments : {DType::kF32, DType::kBF16}) {
      const Store store(dtype, moments);
      const DType expected = dtype == DType::kF64 ? DType::kF64 : moments;
      EXPECT_EQ(store.segment().m.dtype(), expected);
      EXPECT_EQ(store.segment().v.dtype(), expected);
      EXPECT_EQ(store.segment().grad.dtype(), acc_of(dtype));
    }
  }
}

TEST(ParameterStoreTest, MomentsInBf16AreRoundedWhenWritten) {
  const std::vector<float> values = {0, 1, -1.00390625f, 1.01171875f, 1e-30f, 3.1415927f};
  Store narrow(DType::kF32, DType::kBF16), wide(DType::kF32, DType::kF32);
  for (const Kind kind : {Kind::kM, Kind::kV}) {
    narrow.write_all(kind, values);
    wide.write_all(kind, values);
  }
  std::vector<float> rounded;
  for (const float x : values) rounded.push_back(static_cast<float>(BF16(x)));
  EXPECT_NE(rounded, values);
  EXPECT_EQ(narrow.read_all(narrow.segment().m), rounded);
  EXPECT_EQ(narrow.read_all(narrow.segment().v), rounded);
  EXPECT_EQ(wide.read_all(wide.segment().v), values);
}

TEST(ParameterStoreTest, AdamWUpdatesEveryPairOfTypes) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
    for (const DType moments : {DType::kF32, DType::kBF16}) {
      Store store(dtype, moments);
      const Segment& s = store.segment();
      visit_float(s.grad.dtype(), [&]<class A>() {
        s.grad.copy_from(Tensor::from(std::vector<A>(s.grad.numel(), A(0.3)), s.grad.shape()));
        adamw_step(store, {.moments = moments}, 1e-2, 1, Tensor::from(std::vector<A>{1}, {1}));
      });
      const float m =
          moments == DType::kBF16 && dtype != DType::kF64 ? static_cast<float>(BF16(0.03f)) : 0.03f;
      for (const float x : store.read_all(s.m)) EXPECT_NEAR(x, m, 1e-8);
    }
  }
}

}  // namespace
}  // namespace switchyard
