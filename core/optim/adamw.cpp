#include "core/optim/adamw.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/launch.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"
#include "kernels/grouped_matmul.h"

namespace switchyard {

namespace {

// Progress through the part of the run after warm-up, in [0, 1]: 1 at the last step.
double progress_of(const ScheduleOptions& s, int64_t step) {
  const int64_t length = s.steps - s.warmup_steps;
  if (length <= 0) return 0;
  return std::clamp(static_cast<double>(step - s.warmup_steps) / static_cast<double>(length), 0.0, 1.0);
}

struct StepArguments {
  const AdamWOptions& options;
  double lr;
  int64_t step;
  const Tensor& clip;
};

// Elements [begin, begin + n) of this rank's part of the segment.
template <class T, class M>
kernels::AdamW<T, M> kernel_of(const Segment& s, const StepArguments& args, int64_t begin, int64_t n) {
  using A = Acc<T>;
  const auto part = [&](const Tensor& run) { return run.slice(begin, {n}); };
  return {.p = part(s.part(s.value)).template data<T>(),
          .master = s.master.defined() ? part(s.master).template data<A>() : nullptr,
          .m = part(s.m).template data<M>(),
          .v = part(s.v).template data<M>(),
          .grad = part(s.part(s.grad)).template data<A>(),
          .clip = args.clip.data<A>(),
          .n = n,
          .step = args.step,
          .lr = args.lr,
          .beta1 = args.options.beta1,
          .beta2 = args.options.beta2,
          .eps = args.options.eps,
          .weight_decay = s.decay ? args.options.weight_decay : 0.0};
}

void update(const Segment& s, const StepArguments& args, int64_t begin, int64_t n) {
  launch(s.value, [&]<class T>(auto on) {
    if constexpr (!std::is_same_v<T, double>) {
      if (s.m.dtype() == DType::kBF16) return kernels::run(on, kernel_of<T, BF16>(s, args, begin, n));
    }
    kernels::run(on, kernel_of<T, Acc<T>>(s, args, begin, n));
  });
}

// A parameter from element `begin` on.
void update(const Segment& s, const StepArguments& args, int64_t begin, const GradFactors& factors) {
  launch_factors(factors, [&]<class T>(const kernels::GradientFactors<T>& f) {
    const int64_t n = f.groups * f.n * f.k;
    if (s.m.dtype() == DType::kBF16)
      kernels::run(Cpu{}, kernels::FactoredAdamW<T, BF16>{kernel_of<T, BF16>(s, args, begin, n), f});
    else
      kernels::run(Cpu{}, kernels::FactoredAdamW<T>{kernel_of<T, Acc<T>>(s, args, begin, n), f});
  });
}

// Whether the products that read the segment's parameters next see to their update: experts'.
bool can_wait(const Segment& s) {
  if (s.placement != Placement::kExpert || s.share.ranks > 1 || s.value.device() != Device::kCpu)
    return false;
  return visit_float(s.dtype, []<class T>() { return kernels::updates_on_the_way<T>(Cpu{}); });
}

bool has_factors(const ParameterStore& store, const Segment& s) {
  return std::any_of(s.parameters.begin(), s.parameters.end(),
                     [&](int i) { return store.parameters()[i].var.grad_factors().has_value(); });
}

void update_later(const Segment& s, const StepArguments& args, const Parameter& p) {
  const auto wait = [&]<class T, class M>() {
    const auto kernel = kernel_of<T, M>(s, args, p.offset, p.spec.shape.numel());
    p.var.update_later(kernels::update_later(Cpu{}, kernel, p.spec.shape[0]));
  };
  const bool bf16 = s.dtype == DType::kBF16;
  if (s.m.dtype() == DType::kBF16)
    bf16 ? wait.template operator()<BF16, BF16>() : wait.template operator()<float, BF16>();
  else
    bf16 ? wait.template operator()<BF16, float>() : wait.template operator()<float, float>();
}

}  // namespace

double schedule_factor(const ScheduleOptions& s, int64_t step) {
  if (step <= s.warmup_steps) return static_cast<double>(step) / static_cast<double>(s.warmup_steps);
  const double t = progress_of(s, step), floor = s.min_lr_ratio;
  switch (s.kind) {
    case ScheduleKind::kConstant: return 1;
    case ScheduleKind::kCosine: return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * t));
    case ScheduleKind::kLinear: return 1 - (1 - floor) * t;
    case ScheduleKind::kWsd: {
      const int64_t decay =
          std::max<int64_t>(1, std::llround(s.decay_fraction * static_cast<double>(s.steps)));
      const int64_t begin = s.steps - decay;
      if (step <= begin) return 1;
      return 1 - (1 - floor) * std::min(1.0, static_cast<double>(step - begin) / static_cast<double>(decay));
    }
  }
  return 1;
}

void add_gradient_squares(const ParameterStore& store, const Tensor& sum, const Tensor& workspace) {
  const auto add = [&](const Tensor& x, bool square) {
    launch(x, [&]<class T>(auto on) {
      kernels::run(on, kernels::Sum<T>{.sum = sum.data<double>(),
                                       .x = x.data<T>(),
                                       .workspace = workspace.data<double>(),
                                       .n = x.numel(),
                                       .square = square,
                                       .accumulate = true});
    });
  };
  for (const Segment& s : store.segments()) {
    const bool known = s.share.ranks == 1 &&
                       std::any_of(s.parameters.begin(), s.parameters.end(),
                                   [&](int i) { return store.parameters()[i].var.grad_squares().defined(); });
    if (!known) {
      add(s.part(s.grad), true);
      continue;
    }
    for (const int i : s.parameters) {
      const Var& var = store.parameters()[i].var;
      const Tensor squares = var.grad_squares();
      add(squares.defined() ? squares : var.grad(), !squares.defined());
    }
  }
}

void adamw_step(ParameterStore& store, const AdamWOptions& options, double lr, int64_t step,
                const Tensor& clip) {
  const StepArguments args{options, lr, step, clip};
  for (const Segment& s : store.segments()) {
    const bool wait = can_wait(s);
    if (!wait && !has_factors(store, s)) {
      update(s, args, 0, s.m.numel());
      continue;
    }
    for (const int i : s.parameters) {
      const Parameter& p = store.parameters()[i];
      if (const auto& factors = p.var.grad_factors())
        update(s, args, p.offset, *factors);
      else if (wait)
        update_later(s, args, p);
      else
        update(s, args, p.offset, p.spec.shape.numel());
    }
  }
}

}  // namespace switchyard
