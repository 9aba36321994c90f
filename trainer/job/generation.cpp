#include "trainer/job/generation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"
#include "trainer/together.h"

namespace switchyard {

namespace {

// The likeliest first; ties go to the lower id.
std::vector<int32_t> ranked(const float* logits, int64_t vocab, int64_t count) {
  std::vector<int32_t> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  order.resize(count);
  return order;
}

int32_t draw(const float* logits, int64_t vocab, const GenerationOptions& o, uint64_t position) {
  if (o.temperature <= 0) return ranked(logits, vocab, 1)[0];
  const std::vector<int32_t> choices = ranked(logits, vocab, o.top_k > 0 ? std::min(o.top_k, vocab) : vocab);
  std::vector<double> cumulative;
  double sum = 0;
  for (const int32_t id : choices) {
    cumulative.push_back(sum += std::exp((logits[id] - logits[choices[0]]) / o.temperature));
  }
  const double u = uniform_of(philox(key_of(o.seed, "generate"), position)[0]) * sum;
  const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), u);
  return choices[std::min<size_t>(found - cumulative.begin(), choices.size() - 1)];
}

}  // namespace

void check_vocabulary(const std::vector<int32_t>& ids, int64_t vocab_size, const std::string& where,
                      Fault fault) {
  for (const int32_t id : ids)
    if (id < 0 || id >= vocab_size)
      fail(fault, where, ": token ", id, " is not in the model's vocabulary of ", vocab_size);
}

void generate(const Transformer& model, std::vector<int32_t> ids, std::optional<int32_t> stop,
              const GenerationOptions& options, const Group& world, const std::function<void(int32_t)>& emit,
              const std::function<bool()>& interrupted) {
  CHECK(!ids.empty(), "nothing to continue");
  check_vocabulary(ids, model.options().vocab_size, "the text to continue", Fault::kData);
  NoGrad guard;
  SequenceCache cache = model.make_cache(std::ssize(ids) + options.max_tokens, model.device());
  for (int64_t i = 0; i < options.max_tokens; ++i) {
    if (any_rank(*world, interrupted)) return;
    const auto length = static_cast<int64_t>(ids.size());
    ForwardContext context;
    const Tensor hidden = model.hidden(model.on_device(ids), context, &cache).value();
    int32_t next = 0;
    if (world->rank() == 0) {
      const Tensor logits = model.logits(hidden, length - 1, 1);
      next = draw(logits.data<float>(), logits.cols(), options, static_cast<uint64_t>(i));
    }
    world->broadcast(&next, 1, DType::kI32, 0);
    if (stop && next == *stop) return;
    ids = {next};
    emit(next);
  }
}

}  // namespace switchyard
