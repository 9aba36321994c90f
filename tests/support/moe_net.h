// An MoE layer with its parameters, on one rank.
#pragma once

#include "parallel/expert/moe_layer.h"

namespace switchyard::test {

struct MoeNet {
  static constexpr int64_t kHidden = 6;

  MoeNet(const MoeOptions& options, const Axis& ep, DType dtype = DType::kF64,
         const std::string& prefix = "mlp.")
      : meter(std::make_shared<ExchangeMeter>()),
        layer(store, options,
              {.layer = 1,
               .hidden = kHidden,
               .dense_intermediate = 5,
               .dtype = dtype,
               .router_stddev = 0.8,
               .expert_stddev = 0.6,
               .dense_stddev = 0.6,
               .prefix = prefix},
              ep, meter) {
    store.materialize(Device::kCpu, 3, true);
  }
  explicit MoeNet(const MoeOptions& options, const Group& ep = make_self(), DType dtype = DType::kF64)
      : MoeNet(options, Axis{ep, ep}, dtype) {}

  Vars parameters() const {
    Vars vars;
    for (const Parameter& p : store.parameters()) vars.push_back(p.var);
    return vars;
  }

  std::shared_ptr<ExchangeMeter> meter;
  ParameterStore store;
  MoeLayer layer;
};

}  // namespace switchyard::test
