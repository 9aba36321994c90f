// Memory that a thread keeps between calls: grown to the largest request, never shrunk.
//     thread_local Scratch<float> tile;   float* t = tile.reserve(n);   (contents undefined)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace switchyard::kernels {

template <class T>
class Scratch {
 public:
  // Room for n elements, aligned to a cache line; an earlier pointer may become invalid.
  T* reserve(int64_t n) {
    if (n > size_) {
      const size_t bytes = static_cast<size_t>(n) * sizeof(T);
      memory_.reset();
      memory_.reset(static_cast<T*>(::operator new(bytes, kAlignment)));
      size_ = n;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<T, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace switchyard::kernels
