// Everything of a TrainingJob before its first step.
#include <fmt/format.h>

#include <algorithm>

#include "core/device/stream.h"
#include "parallel/data/shares.h"
#include "trainer/checkpoint/model_state.h"
#include "trainer/checkpoint/runs.h"
#include "trainer/export/tensor_list.h"
#include "trainer/job/agreement.h"
#include "trainer/job/generation.h"
#include "trainer/job/job.h"
#include "trainer/job/plan.h"
#include "trainer/job/threads.h"
#include "trainer/together.h"

namespace switchyard {
namespace {

bool lies_in(const std::filesystem::path& path, const std::filesystem::path& directory) {
  std::error_code ignored;
  const std::string inner = std::filesystem::weakly_canonical(path, ignored).string() + "/";
  const std::string outer = std::filesystem::weakly_canonical(directory, ignored).string() + "/";
  return inner.starts_with(outer);
}

}  // namespace

TrainingJob::TrainingJob(Config config, Group world, const JobOptions& options)
    : config_(std::move(config)), options_(options) {
  directory_.root = options.run_dir.empty() ? std::filesystem::path("runs") / config_.name
                                            : std::filesystem::path(options.run_dir);
  check_same_config(world, config_);
  together(world, [&] {
    check_world(config_, world->size());
    check_data(config_);
    choose_device();
    if (world->rank() == 0 && std::filesystem::is_directory(directory_.root)) lock_run_directory();
  });
  choose_checkpoint(world);
  together(world, [&] {
    adopt_initial_model();
    open_data();
    adopt_texts(world->rank() == 0);
    check_prompts(world->rank() == 0);
    if (world->rank() == 0) check_memory(config_, world->size(), options_.local_size);
  });
  check_same_data(world, *train_);
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
    if (config_.log.tensorboard) board_.emplace(directory_.tensorboard(), config_, step_);
    if (!options_.resume) set_aside(directory_.checkpoints());
    if (resume_from_)  // a kill may have come before LATEST was moved and older ones were removed
      publish(directory_.checkpoints(), step_, config_.checkpoint.keep_last, warn, damaged_);
    open_metrics();
    evaluations_.emplace(directory_.evaluations(), step_);
    drop_later_samples(directory_.samples(), step_);
    if (!board_ && step_ < config_.train.steps) TensorBoard::take_back(directory_.tensorboard(), step_);
    progress_.emplace(directory_.log(), step_ + 1, config_.train.steps);
    announce();
  });
}

TrainingJob::~TrainingJob() = default;

void TrainingJob::choose_device() const {
  choose_threads(config_.threads, options_.local_size);
  if (config_.device == Device::kCuda) use_cuda_device(options_.local_rank, options_.local_size);
}

// Every rank looks, which takes all the same time, and takes what rank 0 found: a run that `train.init_from`
// names may be writing its next checkpoint. A run that goes on has the model in its own; the one it began with
// may be gone.
void TrainingJob::choose_checkpoint(const Group& world) {
  together(world, [&] {
    const Warn root_warns = world->rank() == 0 ? Warn(warn) : Warn([](const std::string&) {});
    if (options_.resume) resume_from_ = find_newest(directory_.checkpoints(), root_warns);
    if (!resume_from_ && !config_.train.init_from.empty())
      init_from_ = resolve_checkpoint(config_.train.init_from, root_warns);
  });
  for (auto* path : {&resume_from_, &init_from_}) {
    const std::string chosen = text_of_root(*world, path->value_or("").string());
    path->reset();
    if (!chosen.empty()) *path = chosen;
  }
  if (!options_.resume && init_from_ && lies_in(*init_from_, directory_.root)) {
    throw FailedTogether(Fault::kUsage,
                         concat("train.init_from: ", init_from_->string(), " is of the run that ",
                                "--resume never replaces; choose another --run-dir"));
  }
}

void TrainingJob::adopt_initial_model() {
  if (config_.train.init_from.empty()) return;
  CheckpointReader reader(*start_from());
  adopt_model(config_, read_model_options(reader));
}

// What later checkpoints keep of the one that the weights come from.
void TrainingJob::adopt_texts(bool warns) {
  if (!start_from()) return;
  CheckpointReader reader(*start_from());
  if (reader.has_text(kSourceText)) source_ = reader.text(kSourceText);
  if (!reader.has_text(kTokenizerText)) return;
  auto tokenizer = load_tokenizer_json(reader.text(kTokenizerText), reader.path_of(kTokenizerText));
  if (!tokenizer_) {
    tokenizer_ = std::move(tokenizer);
    const auto other = validation_file_ ? tokenizer_of(*validation_file_) : nullptr;
    if (other && !same_vocabulary(*other, *tokenizer_))
      fail(Fault::kData, config_.data.validation, ": its tokenizer is not that of ",
           reader.directory().string());
  } else if (warns && !same_vocabulary(*tokenizer_, *tokenizer)) {
    warn(reader.directory().string() + ": its tokenizer is not that of the data");
  }
}

// A prompt that cannot be sampled is told now, and not by the first sample, hours from now.
void TrainingJob::check_prompts(bool warns) const {
  if (config_.sample.every_steps == 0) return;
  if (!tokenizer_) {
    if (warns) warn("sample.prompts are left out: the data's tokenizer is not known");
    return;
  }
  for (const std::string& prompt : config_.sample.prompts)
    check_vocabulary(tokenizer_->encode(prompt), config_.model.vocab_size, "sample.prompts: " + shown(prompt),
                     Fault::kUsage);
}

void TrainingJob::open_data() {
  train_.emplace(config_.data.sets());
  if (!config_.data.validation.empty()) {
    validation_file_.emplace(TokenFile::open(config_.data.validation));
    train_->check_tokenizer(*validation_file_);
  }
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

void TrainingJob::open_metrics() {
  metrics_.emplace(directory_.metrics(), step_);
  if (const int64_t last = metrics_->last_step(); last < step_) {
    const std::string missing = last + 1 == step_ ? fmt::format("step {} is", step_)
                                                  : fmt::format("steps {} to {} are", last + 1, step_);
    warn(fmt::format("{}: {} missing", directory_.metrics().string(), missing));
  }
}

void TrainingJob::build_model() {
  store_ = std::make_unique<ParameterStore>();
  model_ = std::make_unique<Transformer>(*store_, config_.model, compute_dtype(config_.precision), mesh_.ep);
  const bool fresh = !resume_from_ && config_.train.init_from.empty();
  store_->materialize(config_.device, config_.seed, true, fresh,
                      segment_options(mesh_, config_.optimizer.moments));
}

void TrainingJob::check_resumable(CheckpointReader& reader) {
  auto differences = model_differences(read_model_options(reader), config_.model);
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
  if (layers.empty() || !reader.has_text(kStateText)) return;
  experts_ = read_expert_state(reader.text(kStateText), reader.path_of(kStateText), layers.size(),
                               config_.model.moe->num_experts);
  if (layers[0]->ranks() == 1) experts_.clear();  // one rank has every expert in its own slot
  for (size_t i = 0; i < experts_.size(); ++i) layers[i]->place_experts(*store_, experts_[i].slots);
}

// How often the run reads a data set, which gives `share` of its samples.
double TrainingJob::epochs_of(size_t set, double share) const {
  const double tokens = static_cast<double>(config_.train.steps) *
                        static_cast<double>(config_.train.global_batch_size * config_.train.sequence_length);
  return share * tokens / static_cast<double>(train_->file(set).tokens());
}

void TrainingJob::announce_data() {
  const auto& sets = train_->sets();
  double weights = 0;
  for (const DataSetOptions& set : sets) weights += set.weight;
  for (size_t i = 0; i < sets.size(); ++i) {
    const int64_t tokens = train_->file(i).tokens();
    if (sets.size() > 1)
      say(fmt::format("  data: weight {} of {}, {} tokens, {:.2f} epochs", sets[i].weight, sets[i].path,
                      tokens, epochs_of(i, sets[i].weight / weights)));
    if (tokens <= config_.train.sequence_length)
      warn(fmt::format("{} has {} tokens: a sequence of {} reads them more than once", sets[i].path, tokens,
                       config_.train.sequence_length));
  }
}

void TrainingJob::announce() {
  write_file(directory_.config(), resolved_text(config_));
  write_file(directory_.env(), environment_json(config_, mesh_.world.size()));
  const std::string epochs = train_->sets().size() > 1 ? "" : fmt::format(", {:.2f} epochs", epochs_of(0, 1));
  say(fmt::format("{}: {:.2f} M parameters, {} layers, {} on {} rank{}, EP {}, {} tokens of data{}",
                  config_.name, static_cast<double>(count_parameters(config_.model).total) / 1e6,
                  config_.model.num_layers, name_of(config_.device), mesh_.world.size(),
                  mesh_.world.size() == 1 ? "" : "s", config_.parallel.expert, train_->tokens(), epochs));
  announce_data();
  if (resume_from_) say(fmt::format("resuming after step {} from {}", step_, resume_from_->string()));
}

}  // namespace switchyard
