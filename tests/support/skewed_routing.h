// Routing as bad as it gets, from a seed: for tests and benchmarks of everything that follows the router.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace switchyard {

enum class Skew {
  kUniform,  // every expert equally likely
  kZipf,     // expert e with probability ~ 1 / (e + 1)
  kOneHot,   // expert 0 takes a choice of every token, the others are equally likely
  kEmpty,    // the upper half of the experts gets nothing
};

struct SkewedRouting {
  std::vector<int32_t> expert;  // [tokens, top_k], distinct within a token
  std::vector<float> weight;    // [tokens, top_k], falling, sum 1
};

// Chooses top_k experts a token by the largest log(p_e) + Gumbel noise: draws from p without replacement.
inline SkewedRouting skewed_routing(Skew skew, int64_t tokens, int64_t top_k, int64_t experts,
                                    uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(1e-6f, 1.0f);
  SkewedRouting routing;
  std::vector<std::pair<float, int32_t>> keys(static_cast<size_t>(experts));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t e = 0; e < experts; ++e) {
      float log_p = 0;
      if (skew == Skew::kZipf) log_p = -std::log(static_cast<float>(e + 1));
      if (skew == Skew::kOneHot && e == 0) log_p = 100;
      if (skew == Skew::kEmpty && e >= std::max(top_k, (experts + 1) / 2)) log_p = -100;
      keys[static_cast<size_t>(e)] = {log_p - std::log(-std::log(uniform(engine))), static_cast<int32_t>(e)};
    }
    std::sort(keys.rbegin(), keys.rend());
    float sum = 0;
    for (int64_t j = 0; j < top_k; ++j) sum += static_cast<float>(top_k - j) + 0.5f;
    for (int64_t j = 0; j < top_k; ++j) {
      routing.expert.push_back(keys[static_cast<size_t>(j)].second);
      routing.weight.push_back((static_cast<float>(top_k - j) + 0.5f) / sum);
    }
  }
  return routing;
}

inline constexpr Skew kAllSkews[] = {Skew::kUniform, Skew::kZipf, Skew::kOneHot, Skew::kEmpty};

}  // namespace switchyard
