#include "kernels/split.h"

#include <cmath>

#include "tests/support/kernel_test.h"

namespace switchyard::kernels {
namespace {

std::vector<BF16> split(const std::vector<float>& x, int64_t rows, std::vector<Part> parts) {
  const auto cols = static_cast<int64_t>(x.size()) / rows;
  std::vector<BF16> y(x.size() * parts.size());
  Split args{y.data(), x.data(), rows, cols, static_cast<int>(parts.size()), {}};
  std::copy(parts.begin(), parts.end(), args.part);
  run(Cpu{}, args);
  return y;
}

TEST(Split, ThreePartsAreTheNumber) {
  std::vector<float> x = random_values<float>(5000, 1);
  x.insert(x.end(), {0.0f, 1.0f, -3.0f, 0x1.fffffep20f, -0x1.000002p-60f, 0x1.ff8001p0f});
  const std::vector<BF16> parts = split(x, 1, {Part::kHi, Part::kMid, Part::kLo});
  for (size_t i = 0; i < x.size(); ++i) {
    const double sum =
        to_double(parts[i]) + to_double(parts[x.size() + i]) + to_double(parts[2 * x.size() + i]);
    EXPECT_EQ(sum, static_cast<double>(x[i]));
  }
}

TEST(Split, PartsOfARowLieSideBySideAsAskedFor) {
  const std::vector<float> x = random_values<float>(6, 2);
  const std::vector<BF16> y = split(x, 2, {Part::kMid, Part::kHi, Part::kHi, Part::kMid});
  for (size_t r = 0; r < 2; ++r) {
    for (size_t c = 0; c < 3; ++c) {
      const BF16 hi(x[r * 3 + c]), mid(x[r * 3 + c] - static_cast<float>(hi));
      const BF16* row = y.data() + r * 12 + c;
      EXPECT_TRUE(row[0].bits == mid.bits && row[9].bits == mid.bits);
      EXPECT_TRUE(row[3].bits == hi.bits && row[6].bits == hi.bits);
    }
  }
}

TEST(SumParts, AddsTheSmallestFirst) {
  // 1 + 2^-24 + 2^-24: the small ones survive only together.
  const std::vector<float> x{1, 2, 0x1p-24f, 0, 0x1p-24f, 0};
  std::vector<float> y{7, 7};
  run(Cpu{}, SumParts{y.data(), x.data(), 1, 2});
  EXPECT_EQ(y, (std::vector<float>{1 + 0x1p-23f, 2}));
  run(Cpu{}, SumParts{y.data(), x.data(), 1, 2, true});
  EXPECT_EQ(y, (std::vector<float>{2 + 0x1p-22f, 4}));
}

}  // namespace
}  // namespace switchyard::kernels
