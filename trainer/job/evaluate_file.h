// A checkpoint's model on a whole token file: eval and report.
#pragma once

#include "trainer/job/evaluation.h"
#include "trainer/job/loaded_model.h"

namespace switchyard {

// With the loads of every MoE layer.
Evaluation evaluate_file(const LoadedModel& loaded, const std::string& prefix);

}  // namespace switchyard
