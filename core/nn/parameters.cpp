#include "core/nn/parameters.h"

#include <algorithm>

#include "core/launch.h"
#include "core/random.h"
#include "kernels/elementwise.h"

namespace switchyard {

namespace {

constexpr int64_t kAlign = 64;  // elements: every parameter starts on a cache line and suits 16-byte accesses

int64_t padded(int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

Tensor part(const Tensor& run, const Parameter& parameter, const Piece& piece) {
  return run.slice(parameter.offset + piece.offset, piece.shape);
}

// Host values of any floating type as float32.
std::vector<float> as_float(const Tensor& x) {
  return visit_float(x.dtype(), [&]<class T>() {
    const std::vector<T> values = x.to_vector<T>();
    std::vector<float> out(values.size());
    std::transform(values.begin(), values.end(), out.begin(), [](T v) { return static_cast<float>(v); });
    return out;
  });
}

void put(const Tensor& to, const std::vector<float>& values) {
  visit_float(to.dtype(), [&]<class T>() {
    std::vector<T> typed(values.size());
    std::transform(values.begin(), values.end(), typed.begin(), [](float v) { return T(v); });
    copy_bytes(to.raw(), to.device(), typed.data(), Device::kCpu, to.bytes());
  });
}

}  // namespace

Var ParameterStore::add(ParameterSpec spec) {
  Parameter parameter{std::move(spec), Var(Tensor(), true), -1, 0};
  parameters_.push_back(parameter);
  return parameter.var;
}

Var ParameterStore::add_norm(const std::string& name, int64_t size, DType dtype) {
  return add({.name = name, .shape = {size}, .pieces = {{name, 0, {size}}}, .dtype = dtype, .decay = false});
}

Var ParameterStore::add_buffer(const std::string& name, Shape shape) {
  buffers_.push_back({name, shape, Var(Tensor())});
  return buffers_.back().var;
}

Parameter& ParameterStore::parameter(const std::string& name) {
  const auto found = std::find_if(parameters_.begin(), parameters_.end(),
                                  [&](const Parameter& p) { return p.spec.name == name; });
  CHECK(found != parameters_.end(), "no parameter ", name);
  return *found;
}

void ParameterStore::assign_segments() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& p = parameters_[i];
    auto fits = [&](const Segment& s) {
      return s.placement == p.spec.placement && s.decay == p.spec.decay && s.dtype == p.spec.dtype;
    };
    auto found = std::find_if(segments_.begin(), segments_.end(), fits);
    if (found == segments_.end()) {
      segments_.push_back(Segment{p.spec.placement, p.spec.decay, p.spec.dtype, {}, {}, {}, {}, {}, {}});
      found = segments_.end() - 1;
    }
    p.segment = static_cast<int>(found - segments_.begin());
    if (!found->parameters.empty()) {
      const Parameter& last = parameters_[found->parameters.back()];
      p.offset = last.offset + padded(last.spec.shape.numel());
    }
    found->parameters.push_back(static_cast<int>(i));
  }
}

void ParameterStore::materialize(Device device, uint64_t seed, bool trainable, bool initialize) {
  device_ = device;
  trainable_ = trainable;
  assign_segments();
  for (Segment& s : segments_) {
    const Parameter& last = parameters_[s.parameters.back()];
    const Shape shape{last.offset + padded(last.spec.shape.numel())};
    const DType wide = acc_of(s.dtype);
    s.value = Tensor::zeros(shape, s.dtype, device);
    if (!trainable) continue;
    s.grad = Tensor::zeros(shape, wide, device);
    if (s.dtype != wide) s.master = Tensor::zeros(shape, wide, device);
    s.m = Tensor::zeros(shape, wide, device);
    s.v = Tensor::zeros(shape, wide, device);
  }
  for (Parameter& p : parameters_) {
    const Segment& s = segments_[p.segment];
    p.var.set_value(s.value.slice(p.offset, p.spec.shape));
    if (trainable) p.var.set_grad(s.grad.slice(p.offset, p.spec.shape));
  }
  for (const Buffer& b : buffers_) b.var.set_value(Tensor::zeros(b.shape, DType::kF32, device));
  if (initialize && device != Device::kMeta) this->initialize(seed);
}

void ParameterStore::initialize(uint64_t seed) {
  for (const Parameter& p : parameters_) {
    for (const Piece& piece : p.spec.pieces) {
      const Tensor host = Tensor::empty(piece.shape, DType::kF32, Device::kCpu);
      std::vector<float> values(piece.shape.numel(), static_cast<float>(p.spec.fill));
      if (p.spec.stddev > 0) {
        fill_normal(host, key_of(seed, piece.name), p.spec.stddev);
        values = host.to_vector<float>();
      }
      write(p, piece, Kind::kValue, values);
    }
  }
}

void ParameterStore::forget_grads() {
  for (const Parameter& p : parameters_) p.var.forget_grad();
}

void ParameterStore::settle_grads() {
  for (const Parameter& p : parameters_) p.var.settle_grad();
}

void ParameterStore::keep_grads() {
  for (const Parameter& p : parameters_) p.var.keep_grad();
}

std::vector<float> ParameterStore::read(const Parameter& parameter, const Piece& piece, Kind kind) const {
  const Segment& s = segments_[parameter.segment];
  if (kind == Kind::kM) return as_float(part(s.m, parameter, piece));
  if (kind == Kind::kV) return as_float(part(s.v, parameter, piece));
  return as_float(part(s.master.defined() ? s.master : s.value, parameter, piece));
}

void ParameterStore::write(const Parameter& parameter, const Piece& piece, Kind kind,
                           const std::vector<float>& values) {
  CHECK(static_cast<int64_t>(values.size()) == piece.shape.numel(), piece.name, ": ", values.size(),
        " values for ", to_string(piece.shape));
  const Segment& s = segments_[parameter.segment];
  if (kind == Kind::kM) return put(part(s.m, parameter, piece), values);
  if (kind == Kind::kV) return put(part(s.v, parameter, piece), values);
  put(part(s.value, parameter, piece), values);
  if (s.master.defined()) put(part(s.master, parameter, piece), values);
}

}  // namespace switchyard
