// One Mixture-of-Experts block: router, capacity, dispatcher, experts, combine.
//
//   p = router(x)
//   y[t] = sum over the chosen experts e of weight[t, e] * Expert_e(x[t])   (+ shared expert, + dense branch)
//
// Routed experts are sharded over the ep axis; everything else is replicated. A
// group of one is the same code.
#pragma once

#include <memory>
#include <optional>

#include "core/nn/feed_forward.h"
#include "parallel/expert/dispatcher.h"
#include "parallel/expert/load.h"
#include "parallel/expert/options.h"

namespace switchyard {

// What a forward pass of one micro-batch brings along.
struct ForwardContext {
  bool training = false;
  int64_t sequences = 1;    // in the micro-batch
  double aux_scale = 1;     // 1 / micro-batches in the global batch: auxiliary losses are means over them
  uint64_t noise_key = 0;   // of (seed, step): jitter, noisy gating
  int64_t first_token = 0;  // of the micro-batch in the step, all ranks': noise does not depend on the layout
  Vars losses;              // auxiliary losses join here, scaled
  LoadRecorder* loads = nullptr;
};

struct MoeLayerSpec {
  int64_t layer;
  int64_t hidden;
  int64_t dense_intermediate;  // of the hybrid block's dense branch
  DType dtype;                 // of activations and expert weights
  double router_stddev, expert_stddev, dense_stddev;
  std::string prefix;      // "model.layers.3.mlp."
  int64_t moe_layers = 1;  // of the model: what plans assume of the loads
};

class MoeLayer {
 public:
  MoeLayer(ParameterStore& store, const MoeOptions& options, const MoeLayerSpec& spec, const Axis& ep,
           std::shared_ptr<ExchangeMeter> meter);

  Var operator()(const Var& x, ForwardContext& context) const;  // [tokens, d] -> [tokens, d]

  // Once per global batch, with its counts over all ranks. Selection bias of aux-loss-free balancing:
  // b += rate * sign(mean - count). Balance::kGlobal: the experts' shares, for the next global batch.
  void update_routing(const LayerLoad& load) const;
  // Where its experts stand. place_experts: before weights are loaded; move_experts: with weights, masters
  // and moments, on all ranks, when no gradient is needed any more; `edp`: those that share the last two.
  const Slots& slots() const { return dispatcher_.slots(); }
  int ranks() const { return dispatcher_.axis().size(); }
  void set_shadow_pairs(int64_t pairs) { dispatcher_.set_shadow_pairs(pairs); }  // as in Dispatcher
  void place_experts(ParameterStore& store, const Slots& slots);
  void move_experts(ParameterStore& store, const Slots& slots, const Axis& edp);

  const MoeOptions& options() const { return options_; }

 private:
  Var router_logits(const Var& x, const ForwardContext& context) const;
  Tensor keep(const Routing& routing, bool training) const;
  void add_losses(const Routing& routing, const Var& logits, ForwardContext& context,
                  LoadRecorder::Sample& sample) const;
  Var experts(const Dispatched& sent) const;
  ParameterSpec gate_up_spec() const;
  ParameterSpec down_spec() const;
  void update_bias(const LayerLoad& load) const;
  void update_excess(const LayerLoad& load) const;

  MoeOptions options_;
  MoeLayerSpec spec_;
  kernels::RouteRule rule_;
  Dispatcher dispatcher_;
  Var router_;  // [experts, d] in Acc
  Var noise_;   // [experts, d] in Acc: W_noise; undefined without noisy_gate
  Var bias_;    // [experts] float32, a buffer; undefined without expert_bias
  // [experts] float32, a buffer; undefined without Balance::kGlobal. A global batch's micro-batches
  // run forward and backward one after the other, so its own shares are known too late for its
  // first ones: its loss has those of the batch before. Kept as share - 1 / experts: zeros are the
  // even share, which presses nowhere.
  Var excess_;
  Var gate_up_, down_;  // this rank's experts: [local, 2 m, d], [local, d, m]
  std::optional<FeedForward> shared_, dense_;
  Var shared_gate_;  // [1, d]
};

}  // namespace switchyard
