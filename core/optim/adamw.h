// AdamW over a ParameterStore, and the learning-rate schedules.
#pragma once

#include "core/nn/parameters.h"
#include "core/optim/options.h"

namespace switchyard {

// Factor of the learning rate at `step` (from 1).
double schedule_factor(const ScheduleOptions& schedule, int64_t step);

// Adds the squares of this rank's part of all gradients to `sum` [1] F64, in a fixed order.
// `workspace`: F64 [kernels::Sum::kBlocks].
void add_gradient_squares(const ParameterStore& store, const Tensor& sum, const Tensor& workspace);

// One update of this rank's part of every segment; where no other rank holds the parameters, by gradients that
// may be left as factors. `clip` is the coefficient of all gradients, [1] in Acc on the parameters' device.
void adamw_step(ParameterStore& store, const AdamWOptions& options, double lr, int64_t step,
                const Tensor& clip);

}  // namespace switchyard
