// A Mixture-of-Experts block as the shortest loops in double, one token at a time, and
// its gradients by differences.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "parallel/expert/options.h"

namespace switchyard::test {

using Vector = std::vector<double>;

struct BruteMoe {
  MoeOptions options;
  std::map<std::string, Vector> weights;  // by logical name, without the layer's prefix
  Vector bias;                            // of selection; empty: none
  std::vector<Vector> noise;              // [token][expert], for noisy_gate; empty: none
  Vector excess;                          // of the experts' shares, for Balance::kGlobal

  struct Choice {
    std::vector<int> expert;  // in the order of falling score; -1 where dropped
    Vector weight;
    Vector scores, logits;  // over all experts
  };
  struct Output {
    std::vector<Vector> y;
    std::vector<Choice> choices, before_drops;
    double losses = 0;  // auxiliary
  };
  // x: the tokens of one micro-batch of `sequences` sequences.
  Output operator()(const std::vector<Vector>& x, int64_t sequences) const;

 private:
  Choice choose(const std::vector<Vector>& x, size_t token) const;
  std::vector<int> allowed_experts(const Vector& preference) const;
  void drop(std::vector<Choice>& choices) const;
  double balance(const std::vector<Choice>& choices, Balance kind) const;
  Vector feed_forward(const std::string& prefix, const Vector& x) const;
  Vector product(const std::string& weight, const Vector& x) const;
};

}  // namespace switchyard::test
