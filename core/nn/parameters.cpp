#include "core/nn/parameters.h"

#include <algorithm>

#include "core/launch.h"
#include "core/random.h"
#include "kernels/elementwise.h"

namespace switchyard {

namespace {

constexpr int64_t kAlign = 64;  // elements: every parameter starts on a cache line and suits 16-byte accesses

int64_t padded(int64_t n, int64_t to = kAlign) { return (n + to - 1) / to * to; }

// Both as in copy_overlap(), converted a bounded piece at a time: `values` may be the largest tensor of a model.
void write_overlap(const Tensor& to, int64_t to_begin, std::span<const float> values, int64_t from_begin) {
  constexpr size_t kPiece = 1 << 20;
  visit_float(to.dtype(), [&]<class T>() {
    for (size_t begin = 0; begin < values.size(); begin += kPiece) {
      const auto part = values.subspan(begin, std::min(kPiece, values.size() - begin));
      const std::vector<T> typed(part.begin(), part.end());
      copy_overlap(to, to_begin, Tensor::from(typed, {std::ssize(typed)}),
                   from_begin + static_cast<int64_t>(begin));
    }
  });
}

}  // namespace

std::vector<float> read_piece(const Tensor& run, const Parameter& parameter, const Piece& piece) {
  const Tensor x = run.slice(parameter.offset + piece.offset, piece.shape);
  return visit_float(x.dtype(), [&]<class T>() {
    const std::vector<T> values = x.to_vector<T>();
    std::vector<float> out(values.size());
    std::transform(values.begin(), values.end(), out.begin(), [](T v) { return static_cast<float>(v); });
    return out;
  });
}

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

void ParameterStore::assign_segments(const SegmentOptions& options) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& p = parameters_[i];
    const int64_t size = p.spec.shape.numel();
    // The last of its kind, if there is room.
    auto found = std::find_if(segments_.rbegin(), segments_.rend(), [&](const Segment& s) {
      return s.placement == p.spec.placement && s.decay == p.spec.decay && s.dtype == p.spec.dtype;
    });
    if (found != segments_.rend()) {
      const Parameter& last = parameters_[found->parameters.back()];
      p.offset = last.offset + padded(last.spec.shape.numel());
    }
    if (found == segments_.rend() || p.offset + size > options.max_elements) {
      p.offset = 0;
      segments_.push_back(
          {.placement = p.spec.placement,
           .decay = p.spec.decay,
           .dtype = p.spec.dtype,
           .share = p.spec.placement == Placement::kExpert ? options.experts : options.replicated});
      found = segments_.rbegin();
    }
    p.segment = static_cast<int>(&*found - segments_.data());
    found->parameters.push_back(static_cast<int>(i));
  }
}

void ParameterStore::allocate(Segment& s, DType moments) const {
  const Parameter& last = parameters_[s.parameters.back()];
  const int64_t n = padded(last.offset + last.spec.shape.numel(), kAlign * s.share.ranks);
  const DType wide = acc_of(s.dtype);
  s.value = Tensor::zeros({n}, s.dtype, device_);
  if (!trainable_) return;
  s.grad = Tensor::zeros({n}, wide, device_);
  const Shape part{n / s.share.ranks};
  if (s.dtype != wide) s.master = Tensor::zeros(part, wide, device_);
  if (wide == DType::kF64) moments = wide;
  s.m = Tensor::zeros(part, moments, device_);
  s.v = Tensor::zeros(part, moments, device_);
}

void ParameterStore::materialize(Device device, uint64_t seed, bool trainable, bool initialize,
                                 const SegmentOptions& options) {
  device_ = device;
  trainable_ = trainable;
  assign_segments(options);
  for (Segment& s : segments_) allocate(s, options.moments);
  for (Parameter& p : parameters_) {
    const Segment& s = segments_[p.segment];
    p.var.set_value(s.value.slice(p.offset, p.spec.shape));
    if (!trainable) continue;
    p.var.set_grad(s.grad.slice(p.offset, p.spec.shape));
    p.var.forget_grad();  // so that a first step differs in nothing from those after it
  }
  for (const Buffer& b : buffers_) b.var.set_value(Tensor::zeros(b.shape, DType::kF32, device));
  if (initialize && device != Device::kMeta) this->initialize(seed);
}

void ParameterStore::initialize(uint64_t seed) {
  for (const Parameter& p : parameters_) {
    for (const Piece& piece : p.spec.pieces) {
      const Tensor host = Tensor::empty(piece.shape, DType::kF32, Device::kCpu);
      const std::span<float> values(host.data<float>(), host.numel());
      if (p.spec.stddev > 0)
        fill_normal(host, key_of(seed, piece.name), p.spec.stddev);
      else
        std::fill(values.begin(), values.end(), static_cast<float>(p.spec.fill));
      write(p, piece, Kind::kValue, values);
    }
  }
}

void ParameterStore::finish_updates() const {
  for (const Parameter& p : parameters_) p.var.value();
}

std::vector<Segment>& ParameterStore::segments() {
  finish_updates();
  return segments_;
}

const std::vector<Segment>& ParameterStore::segments() const {
  finish_updates();
  return segments_;
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

void ParameterStore::write(const Parameter& parameter, const Piece& piece, Kind kind,
                           std::span<const float> values) {
  CHECK(static_cast<int64_t>(values.size()) == piece.shape.numel(), piece.name, ": ", values.size(),
        " values for ", to_string(piece.shape));
  const Segment& s = segments()[parameter.segment];
  const int64_t begin = parameter.offset + piece.offset;
  const auto set_part = [&](const Tensor& state) { write_overlap(state, s.part_begin(), values, begin); };
  if (kind == Kind::kM) return set_part(s.m);
  if (kind == Kind::kV) return set_part(s.v);
  write_overlap(s.value, 0, values, begin);
  if (s.master.defined()) set_part(s.master);
}

}  // namespace switchyard
