#include "core/optim/adamw.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/launch.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"

namespace switchyard {

namespace {

// Progress through the part of the run after warm-up, in [0, 1]: 1 at the last step.
double progress_of(const ScheduleOptions& s, int64_t step) {
  const int64_t length = s.steps - s.warmup_steps;
  if (length <= 0) return 0;
  return std::clamp(static_cast<double>(step - s.warmup_steps) / static_cast<double>(length), 0.0, 1.0);
}

// f.operator()<T, M>(executor) with the types of the segment's parameters and of their moments.
template <class F>
void launch_update(const Segment& s, F&& f) {
  launch(s.value, [&]<class T>(auto on) {
    if constexpr (!std::is_same_v<T, double>) {
      if (s.m.dtype() == DType::kBF16) return f.template operator()<T, BF16>(on);
    }
    f.template operator()<T, Acc<T>>(on);
  });
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

void adamw_step(ParameterStore& store, const AdamWOptions& o, double lr, int64_t step, const Tensor& clip) {
  for (const Segment& s : store.segments()) {
    const Tensor p = s.part(s.value), grad = s.part(s.grad);
    launch_update(s, [&]<class T, class M>(auto on) {
      using A = Acc<T>;
      kernels::run(on, kernels::AdamW<T, M>{.p = p.data<T>(),
                                            .master = s.master.data_or_null<A>(),
                                            .m = s.m.data<M>(),
                                            .v = s.v.data<M>(),
                                            .grad = grad.data<A>(),
                                            .clip = clip.data<A>(),
                                            .n = p.numel(),
                                            .step = step,
                                            .lr = lr,
                                            .beta1 = o.beta1,
                                            .beta2 = o.beta2,
                                            .eps = o.eps,
                                            .weight_decay = s.decay ? o.weight_decay : 0.0});
    });
  }
}

}  // namespace switchyard
