// One training step: micro-batches forward and backward, gradients summed over ranks, one clip, one update.
//
// The objective is the sum over ranks of each rank's loss, and each loss is already divided by the target
// tokens of the whole global batch; so every reduction is a plain sum and no other factor exists.
#pragma once

#include <functional>
#include <optional>

#include "core/device/recording.h"
#include "core/optim/adamw.h"
#include "parallel/data/reducer.h"
#include "parallel/expert/rebalance.h"
#include "trainer/config.h"
#include "trainer/metrics/step_metrics.h"
#include "trainer/model/transformer.h"

namespace switchyard {

DType compute_dtype(Precision precision);

class TrainStep {
 public:
  TrainStep(const Config& config, Transformer& model, ParameterStore& store, const Mesh& mesh);

  // `next` gives this rank's micro-batches, in order. Error{kNonFinite}, on every rank and before the update,
  // if loss or gradient norm is NaN or infinite.
  StepMetrics run(int64_t step, const std::function<Batch(int64_t micro_batch)>& next);

  // Whether a signal asked any rank to stop, as all ranks agreed at the end of the last step.
  bool stop_agreed() const { return stop_agreed_; }
  int64_t micro_batches() const { return plan_.micro_batches(); }
  const MicroBatchPlan& plan() const { return plan_; }
  Rebalancer& rebalancer() { return rebalancer_; }

 private:
  void accumulate(int64_t step, int64_t micro_batch, const Batch& batch);
  void forward_and_backward(int64_t step, int64_t micro_batch);
  bool from_recording() const;
  void replay(int64_t step, int64_t micro_batch);
  void update(StepMetrics& metrics);
  double seconds_without_waiting(std::vector<double> exchanges) const;
  void agree(StepMetrics& metrics);
  void collect_loads(StepMetrics& metrics);

  const Config& config_;
  Transformer& model_;
  ParameterStore& store_;
  Mesh mesh_;
  MicroBatchPlan plan_;
  GradientReducer reducer_;
  LoadRecorder loads_;
  Rebalancer rebalancer_;
  Tensor sums_;       // F64 [2]: cross-entropy, squares of the gradients that are this rank's to update
  Tensor workspace_;  // F64, of the sums
  Tensor one_;        // [1] Acc: d objective / d objective
  std::optional<DeviceBatch> batch_;
  int64_t steps_run_ = 0;
  // Micro-batches as CUDA graphs: the step's first, which replaces the gradients, and the others, which add.
  PrivatePool recorded_memory_;
  std::optional<Recording> first_, others_;
  bool stop_agreed_ = false;
};

// Bytes this process needs most of: resident (CPU) or reserved on the device.
int64_t peak_memory_bytes(Device device);

}  // namespace switchyard
