#include <cmath>

#include "kernels/cpu/factor_product.h"

namespace switchyard::kernels {
namespace {

// All products of two rows of x [rows, cols], kMr by kNr at a time.
template <class T>
class RowProducts {
 public:
  using E = PanelElement<T>;

  RowProducts(Scratch<E>& scratch, const T* x, int64_t rows, int64_t cols) : steps_(steps<E>(cols)) {
    const int64_t size = whole_panels(rows, kNr) * steps_;
    panels_ = scratch.reserve(size + kMr);  // a tile's last rows may be past its panel
    std::fill_n(panels_ + size, kMr, E{});
    pack<kNr>(panels_, x, cols, rows, cols, true);
  }

  // Of the rows from i of panel p on and of panel q. What is not a row of panel p gives anything.
  void tile_at(int64_t p, int64_t i, int64_t q, float* to) const {
    const AInPlace<E> a{panels_ + p * kNr * steps_ + i, 1, kNr};
    tile(steps_, a, BPanel<E>{panels_ + q * kNr * steps_}, to, kNr, Into::kReplace);
  }

 private:
  int64_t steps_;
  E* panels_;
};

struct Sums {
  double total = 0;
  double of_same_row = 0;  // the part of the total that cannot be negative
  double x = 0, dy = 0;    // squares of the elements

  // Whether float32 had room for the products, and they did not cancel each other out.
  bool is_accurate() const {
    constexpr double kSmallest = 1e-25, kLargest = 1e30, kCancelled = 0.01;
    const auto fits = [](double sum) { return sum > kSmallest && sum < kLargest; };
    return fits(x) && fits(dy) && total > kCancelled * of_same_row;
  }

  void add_row(double x_square, double dy_square) {
    of_same_row += x_square * dy_square;
    x += x_square;
    dy += dy_square;
  }
};

// As both matrices of products are symmetric, half of their panels tell all.
template <class T>
Sums sums_by_rows(const T* x, int64_t k, const T* dy, int64_t n, int64_t rows) {
  thread_local Scratch<PanelElement<T>> x_scratch, dy_scratch;
  const RowProducts<T> of_x(x_scratch, x, rows, k), of_dy(dy_scratch, dy, rows, n);
  alignas(64) float xs[kMr * kNr], dys[kMr * kNr];
  Sums sums;
  for (int64_t p = 0; p * kNr < rows; ++p)
    for (int64_t q = p; q * kNr < rows; ++q)
      for (int64_t i = 0; i < std::min(kNr, rows - p * kNr); i += kMr) {
        of_x.tile_at(p, i, q, xs);
        of_dy.tile_at(p, i, q, dys);
        const int64_t exist = std::min({kMr, kNr - i, rows - p * kNr - i});
        double sum = 0;
        for (int64_t at = 0; at < exist * kNr; ++at)
          sum += static_cast<double>(xs[at]) * static_cast<double>(dys[at]);
        sums.total += p == q ? sum : 2 * sum;
        for (int64_t r = 0; p == q && r < exist; ++r) sums.add_row(xs[r * kNr + i + r], dys[r * kNr + i + r]);
      }
  return sums;
}

// Of the gradient itself.
template <class T>
double sum_by_product(const GradientFactors<T>& f, int64_t group) {
  thread_local Scratch<float> scratch;
  float* const rows = scratch.reserve(kMr * f.k);
  FactorProduct<T> product(f, group);
  double sum = 0;
  for (int64_t i = 0; i < f.n; i += kMr) {
    product.go_to_row(i);
    for (int64_t j = 0; j < f.k; j += kNr) product.tile_at(j, rows);
    for (int64_t at = 0; at < kMr * f.k; ++at)
      sum += static_cast<double>(rows[at]) * static_cast<double>(rows[at]);
  }
  return sum;
}

template <class T>
double squares_of(const GradientFactors<T>& f, int64_t group) {
  const int64_t begin = f.offsets[group], rows = f.rows(group);
  if (rows == 0 || f.n == 0 || f.k == 0) return 0;
  const Sums sums = sums_by_rows(f.x + begin * f.k, f.k, f.dy + begin * f.n, f.n, rows);
  return sums.is_accurate() ? sums.total : sum_by_product(f, group);
}

}  // namespace

template <class T>
void run(Cpu, const FactorSquares<T>& args) {
  const GradientFactors<T>& f = args.gradient;
#pragma omp parallel for schedule(dynamic)
  for (int64_t g = 0; g < f.groups; ++g)
    if (f.rows(g) <= kFewRows) args.squares[g] = squares_of(f, g);
}

template void run(Cpu, const FactorSquares<float>&);
template void run(Cpu, const FactorSquares<BF16>&);

}  // namespace switchyard::kernels
