#include <cstdio>

#include "trainer/commands/commands.h"
#include "trainer/job/evaluation.h"
#include "trainer/job/loaded_model.h"

namespace switchyard {

int run_eval(const EvalArgs& args) {
  const LoadedModel loaded = load_model(args.checkpoint);
  std::string prefix = args.data;
  if (prefix.empty() && loaded.config) prefix = loaded.config->data.validation;
  if (prefix.empty()) fail(Fault::kUsage, "the run has no validation data; name some with --data");
  const TokenFile file = TokenFile::open(prefix);
  file.check_vocabulary(loaded.options.vocab_size);
  const TrainOptions train = loaded.config ? loaded.config->train : TrainOptions{};
  const Sampler sampler(file, {.sequence_length = train.sequence_length, .documents = loaded.options.mask_documents});
  std::unique_ptr<Tokenizer> own;
  const Tokenizer* tokenizer = loaded.tokenizer.get();
  if (tokenizer == nullptr) {
    own = tokenizer_of(file);
    tokenizer = own.get();
  }
  const Evaluation result = evaluate(*loaded.model, sampler, tokenizer, train.micro_batch_size, 0, make_self());
  std::printf("%s\n", to_json(result).c_str());
  return 0;
}

}  // namespace switchyard
