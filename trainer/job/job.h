// A training job on one rank: set-up, resume, the loop, checkpoints, evaluation, samples.
#pragma once

#include <memory>
#include <optional>

#include "trainer/data/training_data.h"
#include "trainer/job/evaluation.h"
#include "trainer/job/progress.h"
#include "trainer/job/resume.h"
#include "trainer/job/run_directory.h"
#include "trainer/job/step.h"
#include "trainer/metrics/tensorboard/board.h"

namespace switchyard {

class CheckpointReader;

struct JobOptions {
  std::string run_dir;  // empty: runs/NAME
  bool resume = true;
  int local_rank = 0, local_size = 1;
  bool nccl = true;  // false: thread-ranks that share a GPU
};

class TrainingJob {
 public:
  // Everything that can be wrong is found here, on all ranks together, before the first step.
  TrainingJob(Config config, Group world, const JobOptions& options);
  ~TrainingJob();

  void run();

 private:
  void open_data();
  void lock_run_directory();
  void open_run_directory();
  void open_metrics();
  void choose_device() const;
  void choose_checkpoint(const Group& world);
  // Whose weights the run starts with; none: fresh ones.
  const std::optional<std::filesystem::path>& start_from() const {
    return resume_from_ ? resume_from_ : init_from_;
  }
  void adopt_initial_model();
  void adopt_texts(bool warns);
  void check_prompts(bool warns) const;
  void check_resumable(CheckpointReader& reader);
  void build_model();
  void restore();
  void place_experts(CheckpointReader& reader);
  void announce();
  void announce_data();
  double epochs_of(size_t set, double share) const;

  std::vector<int64_t> data_tokens(int64_t step);  // of each set of a blend, up to the step
  void after_step(const StepMetrics& metrics);
  bool due(int64_t every) const;
  void evaluate_if_missed();
  void evaluate_now(int64_t step);
  void sample_if_missed();
  void sample_now(int64_t step);
  std::filesystem::path samples_of(int64_t step) const;
  void save(int64_t step);
  std::string state_json(int64_t step) const;
  void say(const std::string& line) {
    if (progress_) progress_->say(line);
  }
  bool is_root() const { return mesh_.world.rank() == 0; }

  Config config_;
  JobOptions options_;
  Mesh mesh_;
  RunDirectory directory_;
  std::optional<TrainingData> train_;
  std::optional<TokenFile> validation_file_;
  std::unique_ptr<Tokenizer> tokenizer_;  // null: unknown
  std::optional<Sampler> validation_;
  std::optional<RunLock> lock_;  // rank 0
  std::optional<std::filesystem::path> resume_from_, init_from_;
  std::string source_;            // hugging_face.json of the checkpoint that the weights came from
  std::vector<int64_t> damaged_;  // steps whose checkpoints were passed over
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<Transformer> model_;
  std::vector<ExpertState> experts_;  // of the checkpoint that the run goes on from
  std::unique_ptr<TrainStep> stepper_;
  std::optional<MetricsFile> metrics_, evaluations_;  // rank 0
  std::optional<TensorBoard> board_;                  // rank 0, where the config wants it
  std::optional<Progress> progress_;                  // rank 0
  int64_t step_ = 0;                                  // done
  int64_t saved_step_ = -1;
  bool stopping_ = false;  // a signal came to any rank, and all know
};

}  // namespace switchyard
