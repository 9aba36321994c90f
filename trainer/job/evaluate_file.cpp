#include "trainer/job/evaluate_file.h"

namespace switchyard {

Evaluation evaluate_file(const LoadedModel& loaded, const std::string& prefix) {
  const TokenFile file = TokenFile::open(prefix);
  std::unique_ptr<Tokenizer> own = tokenizer_of(file);
  if (own && loaded.tokenizer && !same_vocabulary(*own, *loaded.tokenizer))
    fail(Fault::kData, prefix, ": its tokenizer is not the model's");
  file.check_tokens(loaded.options.vocab_size);
  const TrainOptions train = loaded.config ? loaded.config->train : TrainOptions{};
  const Sampler sampler(
      file, {.sequence_length = train.sequence_length, .documents = loaded.options.mask_documents});
  const Tokenizer* tokenizer = loaded.tokenizer ? loaded.tokenizer.get() : own.get();
  LoadRecorder loads;
  Evaluation result =
      evaluate(*loaded.model, sampler, tokenizer, train.micro_batch_size, 0, make_self(), &loads);
  result.layers = loads.take();
  return result;
}

}  // namespace switchyard
