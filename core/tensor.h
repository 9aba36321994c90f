// A tensor: shape, type, device and shared storage. Always dense and row-major; views share storage. No
// gradients here (core/autograd.h), no arithmetic (core/ops.h).
#pragma once

#include <array>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "core/device/memory.h"
#include "kernels/dtype.h"

namespace switchyard {

class Shape {
 public:
  static constexpr int kMaxDims = 5;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(const std::vector<int64_t>& dims);

  int dims() const { return dims_; }
  int64_t operator[](int dim) const { return size_[dim < 0 ? dims_ + dim : dim]; }
  int64_t numel() const;
  std::vector<int64_t> vector() const { return {size_.begin(), size_.begin() + dims_}; }
  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, kMaxDims> size_{};
  int dims_ = 0;
};
std::string to_string(const Shape& shape);  // "[2, 3]"

class Tensor {
 public:
  Tensor() = default;  // undefined
  static Tensor empty(Shape shape, DType dtype, Device device);
  static Tensor zeros(Shape shape, DType dtype, Device device);
  // Host values on a device.
  template <class T>
  static Tensor from(const std::vector<T>& values, Shape shape, Device device = Device::kCpu);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t numel() const { return shape_.numel(); }
  int64_t bytes() const { return numel() * size_of(dtype_); }
  // Rows and columns of the matrix that the tensor is if all dims but the last are flattened.
  int64_t cols() const { return shape_[-1]; }
  int64_t rows() const { return cols() == 0 ? 0 : numel() / cols(); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  void* raw() const;
  template <class T>
  T* data() const {
    CHECK(dtype_of<std::remove_const_t<T>>() == dtype_, "the tensor is ", name_of(dtype_));
    return static_cast<T*>(raw());
  }
  // Null for an undefined tensor: optional kernel arguments.
  template <class T>
  T* data_or_null() const {
    return defined() ? data<T>() : nullptr;
  }

  Tensor outline() const;                           // shape, dtype and device alone; undefined
  Tensor view(Shape shape) const;                   // same elements
  Tensor slice(int64_t offset, Shape shape) const;  // a run of elements from `offset`
  Tensor rows(int64_t begin, int64_t count) const;  // of dim 0
  Tensor to(Device device) const;                   // a copy, or itself if it is there
  Tensor clone() const;
  void copy_from(const Tensor& source) const;  // same shape and dtype, any device
  void zero() const { fill_zero(raw(), device_, bytes()); }
  // Host values; the tensor may be on any device. For tests, metrics and checkpoints.
  template <class T>
  std::vector<T> to_vector() const;
  // Whether other tensors live in the same storage.
  bool is_shared() const { return storage_.use_count() > 1; }
  bool same_memory(const Tensor& other) const { return defined() && other.defined() && raw() == other.raw(); }

 private:
  struct Storage;
  std::shared_ptr<Storage> storage_;
  int64_t offset_ = 0;  // bytes
  Shape shape_;
  DType dtype_ = DType::kF32;
  Device device_ = Device::kCpu;
};

template <class T>
Tensor Tensor::from(const std::vector<T>& values, Shape shape, Device device) {
  CHECK(static_cast<int64_t>(values.size()) == shape.numel(), values.size(), " values for ",
        to_string(shape));
  Tensor t = empty(shape, dtype_of<T>(), device);
  upload(t.raw(), device, values.data(), t.bytes());
  return t;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  CHECK(dtype_of<T>() == dtype_, "the tensor is ", name_of(dtype_));
  std::vector<T> values(numel());
  copy_bytes(values.data(), Device::kCpu, raw(), device_, bytes());
  return values;
}

// Two runs of one sequence of elements, which begin at its elements `to_begin` and `from_begin`: copies what
// both have of it.
void copy_overlap(const Tensor& to, int64_t to_begin, const Tensor& from, int64_t from_begin);

}  // namespace switchyard
