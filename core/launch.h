// The only place that turns a tensor's run-time type and device into a compile-time type and an executor.
//
//   launch(x, [&]<class T>(auto on) { kernels::run(on, kernels::SwigluForward<T>{...}); });
#pragma once

#include "core/device/stream.h"
#include "core/tensor.h"

namespace switchyard {

template <class F>
void launch_on(Device device, F&& f) {
  switch (device) {
    case Device::kCpu: f(Cpu{}); return;
    case Device::kCuda:
      if constexpr (kHasCuda) f(current_cuda());
      return;
    case Device::kMeta: return;  // sizes only
  }
}

// f.operator()<T>(executor) with T the tensor's floating-point type.
template <class F>
void launch(const Tensor& x, F&& f) {
  visit_float(x.dtype(),
              [&]<class T>() { launch_on(x.device(), [&](auto on) { f.template operator()<T>(on); }); });
}

// The same for tensors that are float or double, never bf16: router scores, losses, accumulated gradients.
template <class F>
void launch_wide(const Tensor& x, F&& f) {
  launch_on(x.device(), [&](auto on) {
    if (x.dtype() == DType::kF64) {
      f.template operator()<double>(on);
    } else {
      CHECK(x.dtype() == DType::kF32, "a float32 tensor is needed, got ", name_of(x.dtype()));
      f.template operator()<float>(on);
    }
  });
}

}  // namespace switchyard
