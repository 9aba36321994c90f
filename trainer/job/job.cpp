#include "trainer/job/job.h"

#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/device/stream.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/job/generation.h"
#include "trainer/job/plan.h"
#include "trainer/job/resume.h"
#include "trainer/job/threads.h"
#include "trainer/together.h"

namespace switchyard {

namespace {

void warn(const std::string& message) { fmt::print(stderr, "switchyard: warning: {}\n", message); }

}  // namespace

TrainingJob::TrainingJob(Config config, Group world, const JobOptions& options)
    : config_(std::move(config)), options_(options) {
  directory_.root = options.run_dir.empty() ? std::filesystem::path("runs") / config_.name
                                            : std::filesystem::path(options.run_dir);
  together(world, [&] {
    check_world(config_, world->size());
    check_data(config_);
    choose_device();
    if (world->rank() == 0 && std::filesystem::is_directory(directory_.root)) lock_run_directory();
  });
  together(world, [&] {
    const Warn root_warns = world->rank() == 0 ? Warn(warn) : Warn([](const std::string&) {});
    if (options_.resume) resume_from_ = find_newest(directory_.checkpoints(), root_warns);
    adopt_initial_model(root_warns);
    open_data();
    if (world->rank() == 0) check_memory(config_, world->size(), options_.local_size);
  });
  mesh_ = make_mesh(world, static_cast<int>(config_.parallel.expert), config_.device,
                    {.timeout_seconds = config_.parallel.timeout_seconds}, options.nccl);
  together(world, [&] {
    if (is_root()) open_run_directory();
  });
  together(world, [&] {
    build_model();
    restore();
  });
  stepper_ = std::make_unique<TrainStep>(config_, *model_, *store_, mesh_);
  for (size_t i = 0; i < experts_.size(); ++i) stepper_->rebalancer().restore(i, experts_[i].trial);
  together(world, [&] {
    if (!is_root()) return;
    metrics_.emplace(directory_.metrics(), step_);
    evaluations_.emplace(directory_.evaluations(), step_);
    drop_later_samples(directory_.samples(), step_);
    if (config_.log.tensorboard) board_.emplace(directory_.tensorboard(), config_, step_);
    progress_.emplace(directory_.log(), step_ + 1, config_.train.steps);
    announce();
  });
}

TrainingJob::~TrainingJob() = default;

void TrainingJob::choose_device() const {
  choose_threads(config_.threads, options_.local_size);
  if (config_.device == Device::kCuda) use_cuda_device(options_.local_rank, options_.local_size);
}

void TrainingJob::adopt_initial_model(const Warn& warn) {
  if (config_.train.init_from.empty()) return;
  // A run that goes on has the model in its own checkpoint; the one it began with may be gone.
  if (!resume_from_) init_from_ = resolve_checkpoint(config_.train.init_from, warn);
  CheckpointReader reader(resume_from_ ? *resume_from_ : *init_from_);
  if (reader.has_text(kSourceText)) source_ = reader.text(kSourceText);
  adopt_model(config_,
              model_from_text(reader.text("model.txtpb"), reader.directory().string() + "/model.txtpb"));
}

void TrainingJob::open_data() {
  train_.emplace(config_.data.sets());
  if (!config_.data.validation.empty()) validation_file_.emplace(TokenFile::open(config_.data.validation));
  if (config_.model.vocab_size == 0) {
    config_.model.vocab_size = train_->vocab_size();
    if (validation_file_ && !train_->knows_vocabulary())
      config_.model.vocab_size = std::max(config_.model.vocab_size, validation_file_->vocab_size());
  }
  check_model(config_.model, "model");
  train_->check_tokens(config_.model.vocab_size);
  tokenizer_ = train_->tokenizer();
  train_->start({.sequence_length = config_.train.sequence_length,
                 .shuffle = config_.data.shuffle,
                 .seed = config_.seed,
                 .documents = config_.model.mask_documents});
  if (!validation_file_) return;
  validation_file_->check_tokens(config_.model.vocab_size);
  validation_.emplace(*validation_file_, SamplerOptions{.sequence_length = config_.train.sequence_length,
                                                        .documents = config_.model.mask_documents});
}

void TrainingJob::lock_run_directory() {
  lock_.emplace(directory_.root);
  if (!lock_->held())
    warn(directory_.root.string() + ": its file system has no locks; see that no other run writes there");
}

void TrainingJob::open_run_directory() {
  directory_.create();
  if (!lock_) lock_run_directory();
  remove_leftovers(directory_.checkpoints());
}

void TrainingJob::build_model() {
  store_ = std::make_unique<ParameterStore>();
  model_ = std::make_unique<Transformer>(*store_, config_.model, compute_dtype(config_.precision), mesh_.ep);
  const bool fresh = !resume_from_ && config_.train.init_from.empty();
  store_->materialize(config_.device, config_.seed, true, fresh);
}

void TrainingJob::check_resumable(CheckpointReader& reader) {
  const std::string where = reader.directory().string() + "/model.txtpb";
  auto differences = model_differences(model_from_text(reader.text("model.txtpb"), where), config_.model);
  std::erase_if(differences, [](const FieldDifference& d) { return d.field == "model.recompute"; });
  if (differences.empty()) return;
  std::string list;
  for (const FieldDifference& d : differences) {
    list += fmt::format("{}{} is {} in the checkpoint and {} in the config", list.empty() ? "" : "; ",
                        d.field, d.first, d.second);
  }
  fail(Fault::kUsage, reader.directory().string(), ": cannot resume: ", list);
}

void TrainingJob::restore() {
  if (resume_from_) {
    CheckpointReader reader(*resume_from_);
    check_resumable(reader);
    place_experts(reader);
    load_weights(reader, *store_);
    load_moments(reader, *store_);
    step_ = saved_step_ = reader.step();
    for (const int64_t later : list_steps(directory_.checkpoints()))
      if (later > step_) damaged_.push_back(later);
    const auto root_warns = [this](const std::string& message) { is_root() ? warn(message) : void(); };
    check_same_run(reader, config_, train_->fingerprint(), root_warns);
  } else if (init_from_) {
    CheckpointReader reader(*init_from_, Verify::kAll);
    load_weights(reader, *store_, MissingState::kZero);
  }
}

void TrainingJob::place_experts(CheckpointReader& reader) {
  const std::vector<MoeLayer*> layers = model_->moe_layers();
  if (layers.empty() || !reader.has_text("state.json")) return;
  experts_ = read_expert_state(reader.text("state.json"), reader.directory().string() + "/state.json",
                               layers.size(), config_.model.moe->num_experts);
  if (layers[0]->ranks() == 1) experts_.clear();  // one rank has every expert in its own slot
  for (size_t i = 0; i < experts_.size(); ++i) layers[i]->place_experts(*store_, experts_[i].slots);
}

void TrainingJob::announce() {
  write_file(directory_.config(), resolved_text(config_));
  write_file(directory_.env(), environment_json(config_, mesh_.world.size()));
  int64_t parameters = 0;
  for (const Parameter& p : store_->parameters()) {
    const Shape& shape = p.spec.shape;  // of experts: those of this rank
    const bool experts = p.spec.placement == Placement::kExpert;
    parameters += experts ? shape.numel() / shape[0] * config_.model.moe->num_experts : shape.numel();
  }
  say(fmt::format("{}: {:.2f} M parameters, {} layers, {} on {} rank{}, EP {}, {} tokens of data",
                  config_.name, static_cast<double>(parameters) / 1e6, config_.model.num_layers,
                  name_of(config_.device), mesh_.world.size(), mesh_.world.size() == 1 ? "" : "s",
                  config_.parallel.expert, train_->tokens()));
  for (size_t i = 0; train_->sets().size() > 1 && i < train_->sets().size(); ++i) {
    const DataSetOptions& set = train_->sets()[i];
    say(fmt::format("  data: weight {} of {}, {} tokens", set.weight, set.path, train_->file(i).tokens()));
  }
  if (resume_from_) say(fmt::format("resuming after step {} from {}", step_, resume_from_->string()));
}

void TrainingJob::run() {
  const MicroBatchPlan& plan = stepper_->plan();
  evaluate_if_missed();
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
  if (!is_root() || all.empty()) return;
  write_file(directory_.samples() / fmt::format("step_{:08}.txt", step), all);
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

// --resume never in an old run's directory: once the new run has a checkpoint, the old one's must not win the
// next start.
void TrainingJob::drop_later_checkpoints(int64_t step) const {
  for (const int64_t old : list_steps(directory_.checkpoints())) {
    if (old > step) std::filesystem::remove_all(step_directory(directory_.checkpoints(), old));
  }
}

void TrainingJob::save(int64_t step) {
  const auto begin = std::chrono::steady_clock::now();
  std::map<std::string, std::string> texts{{"model.txtpb", model_to_text(config_.model)},
                                           {"config.txtpb", resolved_text(config_)},
                                           {"state.json", state_json(step)}};
  if (tokenizer_) texts["tokenizer.json"] = tokenizer_->to_json();
  if (!source_.empty()) texts[kSourceText] = source_;
  try {
    save_checkpoint(step_directory(directory_.checkpoints(), step), step, *store_, mesh_, texts);
  } catch (const FailedTogether&) {
    if (is_root()) remove_leftovers(directory_.checkpoints());  // no rank writes any more
    throw;
  }
  together(mesh_.world.host, [&] {
    if (!is_root()) return;
    if (!options_.resume) drop_later_checkpoints(step);
    std::erase(damaged_, step);  // written anew
    publish(directory_.checkpoints(), step, config_.checkpoint.keep_last, damaged_);
  });
  saved_step_ = step;
  say(fmt::format(
      "checkpoint of step {} written in {}", step,
      duration_text(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count())));
}

}  // namespace switchyard
