#include <array>

#include "kernels/cpu/adamw_update.h"
#include "kernels/cpu/loops.h"
#include "kernels/late_update.h"

namespace switchyard::kernels {
namespace {

template <class T, class M>
class LateAdamW : public LateUpdate {
 public:
  explicit LateAdamW(const AdamW<T, M>& a)
      : update_(a), grad_(a.grad), n_(a.n), arrays_{array(a.m), array(a.v), array(a.grad), array(a.p)} {
    if (a.master != nullptr) arrays_[count_++] = array(a.master);
  }

  void update(int64_t begin, int64_t n) const override { update_(begin, n, grad_ + begin); }
  void update_all() const override {
    for_chunks(n_, [this](int64_t begin, int64_t end) { update(begin, end - begin); });
  }
  std::span<const Array> arrays() const override { return {arrays_.data(), count_}; }

 private:
  template <class U>
  static Array array(const U* first) {
    return {reinterpret_cast<const char*>(first), sizeof(U)};
  }

  AdamWUpdate<T, M> update_;
  const Acc<T>* grad_;
  int64_t n_;
  std::array<Array, 5> arrays_;
  size_t count_ = 4;
};

}  // namespace

template <class T, class M>
std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<T, M>& args) {
  return std::make_shared<LateAdamW<T, M>>(args);
}

template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<float>&);
template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<float, BF16>&);
template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<BF16>&);
template std::shared_ptr<const LateUpdate> update_later(Cpu, const AdamW<BF16, BF16>&);

}  // namespace switchyard::kernels
