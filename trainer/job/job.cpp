#include "trainer/job/job.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "trainer/checkpoint/model_state.h"
#include "trainer/job/generation.h"
#include "trainer/together.h"

namespace switchyard {

void TrainingJob::run() {
  const MicroBatchPlan& plan = stepper_->plan();
  evaluate_if_missed();
  sample_if_missed();
  while (step_ < config_.train.steps && !stopping_) {
    const int64_t step = step_ + 1;
    StepMetrics metrics = stepper_->run(step, [&](int64_t micro_batch) {
      return train_->batch(plan.first_sample(step, micro_batch), plan.micro_batch);
    });
    if (is_root() && train_->sets().size() > 1) metrics.data_tokens = data_tokens(step);
    step_ = step;
    after_step(metrics);
  }
  if (saved_step_ != step_) save(step_);
  if (stopping_) {
    say(fmt::format("stopped by a signal after step {}; the checkpoint is written", step_));
  } else {
    say(fmt::format("done: step {}", step_));
  }
}

std::vector<int64_t> TrainingJob::data_tokens(int64_t step) {
  return train_->tokens_of(static_cast<uint64_t>(step * config_.train.global_batch_size));
}

void TrainingJob::after_step(const StepMetrics& metrics) {
  if (is_root()) {
    metrics_->write(to_json(metrics));
    if (board_) board_->step(metrics);
    const int64_t every = config_.log.every_steps;
    const bool logged = every > 0 && (step_ == 1 || due(every));
    if (logged) progress_->step(metrics);
    if (board_ && (logged || due(config_.eval.every_steps))) board_->loads(metrics);
  }
  stopping_ = stepper_->stop_agreed();
  if (!stopping_ && due(config_.eval.every_steps)) evaluate_now(step_);
  if (!stopping_ && due(config_.sample.every_steps)) {
    sample_now(step_);
    stopping_ = any_rank(*mesh_.world.host, stop_asked);
  }
  if (stopping_) return;  // the checkpoint comes first, and there may be little time
  if (config_.checkpoint.every_steps > 0 && step_ % config_.checkpoint.every_steps == 0) save(step_);
}

bool TrainingJob::due(int64_t every) const {
  return every > 0 && (step_ % every == 0 || step_ == config_.train.steps);
}

// A run that was stopped after this step, before or during its evaluation.
void TrainingJob::evaluate_if_missed() {
  int64_t evaluated = is_root() ? evaluations_->last_step() : 0;
  mesh_.world.host->broadcast(&evaluated, 1, DType::kI64, 0);
  if (step_ > 0 && evaluated < step_ && due(config_.eval.every_steps)) evaluate_now(step_);
}

void TrainingJob::evaluate_now(int64_t step) {
  if (!validation_) return;
  const int64_t samples = config_.eval.batches * config_.train.global_batch_size;
  const Evaluation result = evaluate(*model_, *validation_, tokenizer_.get(), config_.train.micro_batch_size,
                                     samples, mesh_.world.host, nullptr, stop_asked);
  stopping_ = !result.complete;
  if (!is_root() || stopping_) return;
  evaluations_->write(to_json(result, step));
  if (board_) board_->evaluation(step, result.loss, result.bits_per_byte);
  say(fmt::format("eval at step {}: loss {:.4f}{} over {} tokens", step, result.loss,
                  result.bits_per_byte ? fmt::format(", {:.4f} bits per byte", *result.bits_per_byte) : "",
                  result.tokens));
}

std::filesystem::path TrainingJob::samples_of(int64_t step) const {
  return directory_.samples() / fmt::format("step_{:08}.txt", step);
}

void TrainingJob::sample_if_missed() {
  const bool wanted = step_ > 0 && due(config_.sample.every_steps);
  const bool missed = wanted && is_root() && !std::filesystem::exists(samples_of(step_));
  if (any_rank(*mesh_.world.host, [&] { return missed; })) sample_now(step_);
}

void TrainingJob::sample_now(int64_t step) {
  if (!tokenizer_) return;
  std::string all;
  for (const std::string& prompt : config_.sample.prompts) {
    if (any_rank(*mesh_.world.host, stop_asked)) return;
    std::vector<int32_t> ids = tokenizer_->encode(prompt);
    if (ids.empty()) continue;
    StreamDecoder decoder(*tokenizer_);
    std::string text = prompt;
    generate(
        *model_, ids, tokenizer_->eos(),
        {.max_tokens = config_.sample.max_tokens,
         .temperature = config_.sample.temperature,
         .seed = config_.seed},
        mesh_.world.host, [&](int32_t id) { text += decoder.push(id); }, stop_asked);
    all += text + decoder.finish() + "\n\n";
  }
  if (any_rank(*mesh_.world.host, stop_asked))
    return;  // the last may be cut short: made up when the run goes on
  if (!is_root() || all.empty()) return;
  write_file(samples_of(step), all);
  if (board_) board_->sample(step, all);
  say("sample: " + all.substr(0, all.find("\n\n")));
}

std::string TrainingJob::state_json(int64_t step) const {
  nlohmann::ordered_json state{
      {"step", step},
      {"samples", step * config_.train.global_batch_size},
      {"tokens", step * config_.train.global_batch_size * config_.train.sequence_length},
      {"seed", config_.seed},
      {"sequence_length", config_.train.sequence_length},
      {"shuffle", config_.data.shuffle},
      {"data_fingerprint", hex_of(train_->fingerprint())},
      {"world_size", mesh_.world.size()},
      {"expert_parallel", mesh_.ep.size()}};
  if (!experts_.empty() || stepper_->rebalancer().active()) {
    std::vector<ExpertState> layers;
    for (const MoeLayer* layer : model_->moe_layers())
      layers.push_back({layer->slots(), stepper_->rebalancer().trials()[layers.size()]});
    put(state, layers);
  }
  return state.dump(2) + "\n";
}

void TrainingJob::save(int64_t step) {
  const auto begin = std::chrono::steady_clock::now();
  std::map<std::string, std::string> texts{{kModelText, model_to_text(config_.model)},
                                           {kConfigText, resolved_text(config_)},
                                           {kStateText, state_json(step)}};
  if (tokenizer_) texts[kTokenizerText] = tokenizer_->to_json();
  if (!source_.empty()) texts[kSourceText] = source_;
  try {
    save_checkpoint(step_directory(directory_.checkpoints(), step), step, *store_, mesh_, texts);
  } catch (const FailedTogether&) {
    if (is_root()) remove_leftovers(directory_.checkpoints());  // no rank writes any more
    throw;
  }
  together(mesh_.world.host, [&] {
    if (!is_root()) return;
    remove_set_aside(directory_.checkpoints());
    std::erase(damaged_, step);  // written anew
    publish(directory_.checkpoints(), step, config_.checkpoint.keep_last, warn, damaged_);
  });
  saved_step_ = step;
  say(fmt::format(
      "checkpoint of step {} written in {}", step,
      duration_text(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count())));
}

}  // namespace switchyard
