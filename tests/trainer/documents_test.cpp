// model.mask_documents: a document's tokens meet no other document.
#include <gtest/gtest.h>

#include "tests/support/training_run.h"
#include "trainer/model/transformer.h"

namespace switchyard::test {
namespace {

class Documents : public testing::Test {
 protected:
  explicit Documents(bool mask = true) {
    ModelOptions options = small_config("x").model;
    options.mask_documents = mask;
    const Group self = make_self();
    model_ = std::make_unique<Transformer>(store_, options, DType::kF32, Axis{self, self});
    store_.materialize(Device::kCpu, 3, false);
    for (int32_t i = 0; i < 40; ++i) tokens_.push_back((i * 17 + i * i) % 61);
  }

  // The summed loss of tokens begin .. end - 1, each with the next token as its target.
  double loss(int64_t begin, int64_t end, const std::vector<int32_t>& documents) {
    Batch batch;
    batch.sequences = 1;
    batch.sequence_length = end - begin;
    batch.ids.assign(tokens_.begin() + begin, tokens_.begin() + end);
    batch.targets.assign(tokens_.begin() + begin + 1, tokens_.begin() + end + 1);
    batch.documents = documents;
    ForwardContext context;
    NoGrad guard;
    return model_->loss(model_->on_device(batch), context, 1).sum.to_vector<double>()[0];
  }
  double together() {
    std::vector<int32_t> documents(14, 0);
    documents.resize(39, 1);
    return loss(0, 39, documents);
  }
  double alone() { return loss(0, 14, {}) + loss(14, 39, {}); }

  ParameterStore store_;
  std::unique_ptr<Transformer> model_;
  std::vector<int32_t> tokens_;
};

// Rotary positions are relative, so it does not matter where in a sequence a document begins.
TEST_F(Documents, InOneSequenceLoseWhatTheyLoseAlone) { EXPECT_NEAR(together(), alone(), 1e-5 * alone()); }

struct Unmasked : Documents {
  Unmasked() : Documents(false) {}
};

TEST_F(Unmasked, DocumentsInOneSequenceSeeEachOther) {
  EXPECT_GT(std::abs(together() - alone()), 1e-4 * alone());
}

}  // namespace
}  // namespace switchyard::test
