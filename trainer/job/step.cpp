#include "trainer/job/step.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "core/launch.h"
#include "core/random.h"
#include "kernels/elementwise.h"
#include "parallel/data/shares.h"
#include "trainer/job/process_memory.h"
#include "trainer/together.h"

namespace switchyard {

namespace {

double sum_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

DType compute_dtype(Precision precision) {
  return precision == Precision::kBF16 ? DType::kBF16 : DType::kF32;
}

int64_t peak_memory_bytes(Device device) {
  return device == Device::kCuda ? memory_stats(device).peak_held : peak_resident_bytes();
}

TrainStep::TrainStep(const Config& config, Transformer& model, ParameterStore& store, const Mesh& mesh)
    : config_(config),
      model_(model),
      store_(store),
      mesh_(mesh),
      plan_{config.train.global_batch_size, config.train.micro_batch_size, mesh.world.size(),
            mesh.world.rank()},
      reducer_(store, mesh),
      rebalancer_(store, model.moe_layers(), mesh.edp, config.parallel.rebalance_over_steps),
      sums_(Tensor::zeros({2}, DType::kF64, store.device())),
      workspace_(Tensor::empty({kernels::Sum<float>::kBlocks}, DType::kF64, store.device())),
      one_(Tensor::from<float>({1}, {1}, store.device())) {
  plan_.check();
  // A second micro-batch would add to them.
  for (const Segment& s : store_.segments())
    for (const int i : s.parameters)
      store_.parameters()[i].var.allow_grad_factors(s.share.ranks == 1 && micro_batches() == 1);
  for (MoeLayer* layer : model_.moe_layers()) layer->set_shadow_pairs(config.parallel.shadow_pairs);
}

StepMetrics TrainStep::run(int64_t step, const std::function<Batch(int64_t)>& next) {
  const auto begin = std::chrono::steady_clock::now();
  model_.meter() = {};
  sums_.zero();
  for (int64_t m = 0; m < micro_batches(); ++m) accumulate(step, m, next(m));
  reducer_.finish();
  add_gradient_squares(store_, sums_.slice(1, {1}), workspace_);

  StepMetrics metrics;
  metrics.step = step;
  metrics.lr = config_.optimizer.lr * schedule_factor(config_.schedule, step);
  metrics.tokens = step * config_.train.global_batch_size * config_.train.sequence_length;
  metrics.gradient_bytes = reducer_.bytes_per_step();
  agree(metrics);
  update(metrics);
  collect_loads(metrics);
  store_.forget_grads();
  ++steps_run_;
  metrics.step_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  metrics.tokens_per_second =
      static_cast<double>(config_.train.global_batch_size * config_.train.sequence_length) /
      metrics.step_seconds;
  return metrics;
}

void TrainStep::accumulate(int64_t step, int64_t micro_batch, const Batch& batch) {
  if (batch_) {
    batch_->assign(batch);
  } else {
    batch_.emplace(model_.on_device(batch));
  }
  const bool last = micro_batch + 1 == micro_batches();
  if (from_recording()) {
    replay(step, micro_batch);
    if (last) reducer_.arm();
  } else {
    if (last) reducer_.arm();
    forward_and_backward(step, micro_batch);
  }
}

// The first step makes what is made once: tables, handles, the sums of loads.
bool TrainStep::from_recording() const {
  return config_.train.cuda_graphs && store_.device() == Device::kCuda && steps_run_ > 0;
}

void TrainStep::replay(int64_t step, int64_t micro_batch) {
  std::optional<Recording>& recording = micro_batch == 0 ? first_ : others_;
  if (!recording) {
    release_cached(store_.device());  // the recordings' own pool takes its place
    recording.emplace(recorded_memory_, [&] {
      forward_and_backward(step, micro_batch);
      store_.settle_grads();
    });
  }
  recording->replay();
  store_.keep_grads();
}

void TrainStep::forward_and_backward(int64_t step, int64_t micro_batch) {
  const TrainOptions& t = config_.train;
  ForwardContext context;
  context.training = true;
  context.aux_scale = static_cast<double>(t.micro_batch_size) / static_cast<double>(t.global_batch_size);
  context.noise_key = key_of(config_.seed, "step " + std::to_string(step));
  const int64_t step_begin = (step - 1) * t.global_batch_size;  // of all ranks' samples
  context.first_token =
      (static_cast<int64_t>(plan_.first_sample(step, micro_batch)) - step_begin) * t.sequence_length;
  context.loads = &loads_;
  const double targets = static_cast<double>(t.global_batch_size * t.sequence_length);
  const LossSum loss = model_.loss(*batch_, context, 1 / targets);
  launch_on(sums_.device(), [&](auto on) {
    double* sum = sums_.data<double>();
    kernels::run(on, kernels::Axpby<double>{.y = sum, .a = sum, .b = loss.sum.data<double>(), .n = 1});
  });
  Var objective = loss.loss;
  for (const Var& term : context.losses) objective = add(objective, term);
  backward(objective, one_);
}

// Of all exchanges: what each took the rank that came last to it, for which nobody had to wait.
double TrainStep::seconds_without_waiting(std::vector<double> exchanges) const {
  if (!exchanges.empty())
    mesh_.ep.host->all_reduce(exchanges.data(), std::ssize(exchanges), DType::kF64, ReduceOp::kMin);
  return sum_of(exchanges);
}

// What the ranks decide together, in two small reductions: one clip, one verdict. Every element of every
// parameter is in one rank's part.
void TrainStep::agree(StepMetrics& metrics) {
  mesh_.world.meet();
  const std::vector<double> own = sums_.to_vector<double>();  // the first of the step's two waits
  const ExchangeMeter& meter = model_.meter();
  const double exchanging = sum_of(meter.seconds);
  double totals[8] = {own[0],
                      own[1],
                      stop_asked() ? 1.0 : 0.0,
                      exchanging,
                      static_cast<double>(meter.bytes),
                      exchanging - seconds_without_waiting(meter.seconds),
                      static_cast<double>(meter.shadows),
                      static_cast<double>(meter.shadow_bytes)};
  mesh_.world.host->all_reduce(totals, std::size(totals), DType::kF64);
  int64_t peak = peak_memory_bytes(store_.device());
  mesh_.world.host->all_reduce(&peak, 1, DType::kI64, ReduceOp::kMax);

  const double world = mesh_.world.size();
  metrics.loss =
      totals[0] / static_cast<double>(config_.train.global_batch_size * config_.train.sequence_length);
  metrics.grad_norm = std::sqrt(totals[1]);
  metrics.exchange_seconds = totals[3] / world;
  metrics.exchange_bytes = std::llround(totals[4] / world);
  metrics.exchange_wait_seconds = totals[5] / world;
  metrics.experts_shadowed = std::llround(totals[6]);
  metrics.shadow_bytes = std::llround(totals[7] / world);
  metrics.peak_memory_bytes = peak;
  stop_agreed_ = totals[2] > 0;
  if (!std::isfinite(metrics.loss))
    fail(Fault::kNonFinite, "step ", metrics.step, ": the loss is ",
         std::isnan(metrics.loss) ? std::abs(metrics.loss) : metrics.loss);
  if (!std::isfinite(metrics.grad_norm)) {
    fail(Fault::kNonFinite, "step ", metrics.step, ": the gradient norm is ", std::abs(metrics.grad_norm),
         " (loss ", metrics.loss, ")");
  }
}

void TrainStep::update(StepMetrics& metrics) {
  const double limit = config_.optimizer.clip_norm;
  const double clip = limit > 0 ? std::min(1.0, limit / (metrics.grad_norm + 1e-6)) : 1.0;
  adamw_step(store_, config_.optimizer, metrics.lr, metrics.step,
             Tensor::from<float>({static_cast<float>(clip)}, {1}, store_.device()));
  metrics.parameter_bytes = gather_values(store_, mesh_);
}

void TrainStep::collect_loads(StepMetrics& metrics) {
  metrics.layers = loads_.take();
  reduce(metrics.layers, mesh_.world.host);
  const std::vector<MoeLayer*> layers = model_.moe_layers();
  for (size_t i = 0; i < metrics.layers.size(); ++i) {
    LayerLoad& load = metrics.layers[i];
    layers[i]->update_routing(load);
    load.rank_overload = rank_overload(layers[i]->slots(), load.kept, layers[i]->ranks());
    metrics.aux_loss += load.aux_loss;
    metrics.z_loss += load.z_loss;
  }
  metrics.experts_moved = rebalancer_.after_step(metrics.layers);
}

}  // namespace switchyard
