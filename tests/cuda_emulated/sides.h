// Runs an op on the CPU and on CUDA (emulated or real) and compares.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/handles.h"
#include "tests/support/device_array.h"

namespace switchyard::kernels {

// Order in which the emulator runs threads; on a GPU, nothing.
void set_reverse_order(bool reverse);

// Lets the emulator take weight gradients in parts, with this workspace; a GPU has its own. Returns whether
// the device does.
bool allow_row_cuts(CudaHandles& handles, float* workspace);

class CudaKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU";
  }
};

template <class T>
class CudaKernelsOf : public CudaKernels {};
using FloatTypes = ::testing::Types<float, BF16, double>;
using AccTypes = ::testing::Types<float, double>;

template <class T>
std::vector<T> random_vector(int64_t n, uint32_t seed, float low = -1, float high = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<T> values(static_cast<size_t>(n));
  for (T& v : values) v = static_cast<T>(distribution(engine));
  return values;
}

inline std::vector<int32_t> random_indices(int64_t n, uint32_t seed, int32_t low, int32_t high) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int32_t> distribution(low, high);
  std::vector<int32_t> values(static_cast<size_t>(n));
  for (int32_t& v : values) v = distribution(engine);
  return values;
}

inline double number(BF16 x) { return static_cast<double>(static_cast<float>(x)); }
inline double number(double x) { return x; }

// Relative to the largest value expected. Results in bf16 may differ by one rounding.
template <class T>
constexpr double kClose = std::is_same_v<T, double> ? 1e-11
                          : std::is_same_v<T, BF16> ? 1e-2
                                                    : 2e-5;
// Integers have to be equal.
template <>
inline constexpr double kClose<int32_t> = 0;
template <>
inline constexpr double kClose<int64_t> = 0;

// What an op wrote, array by array.
class Results {
 public:
  template <class T>
  void add(const std::vector<T>& values, double tolerance) {
    std::vector<double> numbers;
    for (const T& v : values) numbers.push_back(number(v));
    arrays_.push_back({std::move(numbers), tolerance});
  }
  void expect_close_to(const Results& expected) const;
  bool operator==(const Results& other) const { return arrays_ == other.arrays_; }

 private:
  struct Array {
    std::vector<double> values;
    double tolerance;
    bool operator==(const Array&) const = default;
  };
  std::vector<Array> arrays_;
};

// Hands out arrays of one side and keeps those that the op writes.
template <class Side>
class Bench {
 public:
  explicit Bench(int64_t shift) : shift_(shift) {}

  static auto on() { return Side::on(); }

  template <class T>
  T* input(const std::vector<T>& values) {
    return keep(values)->data();
  }
  // Its values after the op are compared, with the tolerance of `Precision`.
  template <class Precision, class T>
  T* output(const std::vector<T>& values) {
    auto array = keep(values);
    readers_.push_back([array](Results& results) { results.add(array->values(), kClose<Precision>); });
    return array->data();
  }
  // Starts as nonsense: every element has to be written.
  template <class T, class Precision = T>
  T* output(int64_t n) {
    return output<Precision>(std::vector<T>(static_cast<size_t>(n), static_cast<T>(-77.0f)));
  }
  void* workspace(int64_t bytes) { return input(std::vector<uint8_t>(static_cast<size_t>(bytes), 0xa5)); }

  Results results() const {
    Results results;
    for (const auto& read : readers_) read(results);
    return results;
  }

 private:
  template <class T>
  auto keep(const std::vector<T>& values) {
    const int64_t shift = sizeof(T) == 1 ? 0 : shift_;
    auto array = std::make_shared<typename Side::template Array<T>>(values, shift);
    arrays_.push_back(array);
    return array;
  }

  int64_t shift_;
  std::vector<std::shared_ptr<void>> arrays_;
  std::vector<std::function<void(Results&)>> readers_;
};

template <class Side, class Op>
Results run_on(Op&& op, int64_t shift = 0) {
  Bench<Side> bench(shift);
  op(bench);
  return bench.results();
}

// `op(bench)` makes its arrays with bench.input and bench.output and calls run(bench.on(),
// args). CUDA must agree with the CPU at aligned and at odd addresses, and must give the same
// bits in whatever order threads run.
template <class Op>
void expect_same(Op&& op) {
  const Results expected = run_on<CpuSide>(op);
  for (int64_t shift : {0, 1}) {
    SCOPED_TRACE("shift " + std::to_string(shift));
    const Results actual = run_on<CudaSide>(op, shift);
    actual.expect_close_to(expected);
    set_reverse_order(true);
    EXPECT_TRUE(run_on<CudaSide>(op, shift) == actual) << "the result depends on the order of threads";
    set_reverse_order(false);
  }
}

}  // namespace switchyard::kernels
