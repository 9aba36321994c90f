#include "core/tensor.h"

namespace switchyard {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::vector<int64_t>(dims)) {}

Shape::Shape(const std::vector<int64_t>& dims) : dims_(static_cast<int>(dims.size())) {
  CHECK(dims_ <= kMaxDims, dims_, " dims");
  for (int i = 0; i < dims_; ++i) {
    CHECK(dims[i] >= 0, "dim ", i, " is ", dims[i]);
    size_[i] = dims[i];
  }
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int i = 0; i < dims_; ++i) n *= size_[i];
  return n;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.dims(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

struct Tensor::Storage {
  explicit Storage(Block b) : block(b) {}
  ~Storage() { release(block); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  Block block;
};

Tensor Tensor::empty(Shape shape, DType dtype, Device device) {
  Tensor t;
  t.storage_ = std::make_shared<Storage>(allocate(device, shape.numel() * size_of(dtype)));
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  return t;
}

Tensor Tensor::zeros(Shape shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.zero();
  return t;
}

void* Tensor::raw() const {
  CHECK(defined(), "the tensor is undefined");
  return static_cast<char*>(storage_->block.data) + offset_;
}

Tensor Tensor::outline() const {
  Tensor t = *this;
  t.storage_.reset();
  return t;
}

Tensor Tensor::view(Shape shape) const {
  CHECK(shape.numel() == numel(), to_string(shape_), " seen as ", to_string(shape));
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(int64_t offset, Shape shape) const {
  CHECK(offset >= 0 && offset + shape.numel() <= numel(), "elements ", offset, " + ", to_string(shape),
        " of ", to_string(shape_));
  Tensor t = *this;
  t.offset_ += offset * size_of(dtype_);
  t.shape_ = shape;
  return t;
}

Tensor Tensor::rows(int64_t begin, int64_t count) const {
  std::vector<int64_t> dims = shape_.vector();
  const int64_t stride = dims[0] == 0 ? 0 : numel() / dims[0];
  dims[0] = count;
  return slice(begin * stride, Shape(dims));
}

Tensor Tensor::to(Device device) const {
  if (device == device_) return *this;
  Tensor t = empty(shape_, dtype_, device);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_, device_);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& source) const {
  CHECK(source.shape_ == shape_ && source.dtype_ == dtype_, to_string(source.shape_), " ",
        name_of(source.dtype_), " copied to ", to_string(shape_), " ", name_of(dtype_));
  copy_bytes(raw(), device_, source.raw(), source.device_, bytes());
}

void copy_overlap(const Tensor& to, int64_t to_begin, const Tensor& from, int64_t from_begin) {
  const int64_t begin = std::max(to_begin, from_begin);
  const int64_t n = std::min(to_begin + to.numel(), from_begin + from.numel()) - begin;
  if (n > 0) to.slice(begin - to_begin, {n}).copy_from(from.slice(begin - from_begin, {n}));
}

}  // namespace switchyard
