#include <array>
#include <vector>

#include "kernels/cpu/adamw_update.h"
#include "kernels/cpu/loops.h"
#include "kernels/late_update.h"

namespace switchyard::kernels {
namespace {

template <class T, class M>
class LateAdamW : public LateUpdate {
 public:
  LateAdamW(const AdamW<T, M>& a, int64_t matrices)
      : update_(a),
        grad_(a.grad),
        size_(matrices == 0 ? 0 : a.n / matrices),
        finished_(static_cast<size_t>(matrices)),
        arrays_{array(a.m), array(a.v), array(a.grad), array(a.p)} {
    CHECK(size_ * matrices == a.n, a.n, " elements of ", matrices, " matrices");
    if (a.master != nullptr) arrays_[count_++] = array(a.master);
  }

  void update(int64_t begin, int64_t n) const override { update_(begin, n, grad_ + begin); }
  void update_all() const override {
    const int64_t matrices = std::ssize(finished_);
    for (int64_t first = 0, last; first < matrices; first = last) {
      last = first + 1;
      if (is_finished(first)) continue;
      while (last < matrices && !is_finished(last)) ++last;
      for_chunks((last - first) * size_,
                 [&](int64_t begin, int64_t end) { update(first * size_ + begin, end - begin); });
    }
    std::fill(finished_.begin(), finished_.end(), true);
  }
  void finish(int64_t matrix) const override {
    if (is_finished(matrix)) return;
    update(matrix * size_, size_);
    finished_[static_cast<size_t>(matrix)] = true;
  }
  bool is_finished(int64_t matrix) const override { return finished_[static_cast<size_t>(matrix)]; }
  std::span<const Array> arrays() const override { return {arrays_.data(), count_}; }

 private:
  template <class U>
  static Array array(const U* first) {
    return {reinterpret_cast<const char*>(first), sizeof(U)};
  }

  AdamWUpdate<T, M> update_;
  const Acc<T>* grad_;
  int64_t size_;  // of a matrix
  mutable std::vector<bool> finished_;
  std::array<Array, 5> arrays_;
  size_t count_ = 4;
};

}  // namespace

template <class T, class M>
std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<T, M>& args, int64_t matrices) {
  return std::make_shared<LateAdamW<T, M>>(args, matrices);
}

template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<float>&, int64_t);
template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<float, BF16>&, int64_t);
template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<BF16>&, int64_t);
template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<BF16, BF16>&, int64_t);

}  // namespace switchyard::kernels
