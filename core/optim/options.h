// AdamW's settings.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace switchyard {

struct AdamWOptions {
  double lr = 3e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;    // on tensors of two or more dimensions
  double clip_norm = 1;         // 0: no clipping
  DType moments = DType::kF32;  // or kBF16; of float64 parameters they are float64
};

enum class ScheduleKind : uint8_t { kConstant, kCosine, kLinear, kWsd };

// lr(step) = lr * factor(step), step from 1 to `steps`.
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kConstant;
  int64_t warmup_steps = 0;     // linear from lr / warmup_steps to lr; may exceed `steps`
  int64_t steps = 0;            // the whole run
  double min_lr_ratio = 0;      // the last step's lr / lr
  double decay_fraction = 0.2;  // WSD: the last part of the run, in which lr falls linearly
};

}  // namespace switchyard
