#include "trainer/model/device_batch.h"

#include <algorithm>

namespace switchyard {

namespace {

constexpr int64_t kAlignment = 64;  // elements: 256 bytes, as if each part were a tensor of its own

int64_t stride_of(int64_t tokens) { return (tokens + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

DeviceBatch::DeviceBatch(const Batch& batch, int64_t vocab, Device device)
    : sequences(batch.sequences), sequence_length(batch.sequence_length), vocab_(vocab) {
  const int64_t tokens = sequences * sequence_length, stride = stride_of(tokens);
  const int64_t parts = batch.documents.empty() ? 4 : 5;
  all_ = Tensor::empty({parts * stride}, DType::kI32, device);
  const auto part = [&](int64_t i) { return all_.slice(i * stride, {tokens}); };
  ids = {part(0), part(1), part(2)};
  targets = part(3);
  if (parts == 5) documents = part(4);
  assign(batch);
}

void DeviceBatch::assign(const Batch& batch) {
  const int64_t tokens = targets.numel();
  CHECK(std::ssize(batch.ids) == tokens && std::ssize(batch.targets) == tokens &&
            batch.sequence_length == sequence_length && batch.documents.empty() == !documents.defined(),
        batch.ids.size(), " ids of ", batch.sequence_length, ", ", batch.targets.size(), " targets, ",
        batch.documents.size(), " documents in a batch of ", tokens, " tokens");
  if (all_.device() == Device::kMeta) return;
  const SortedIds sorted = sort_ids(batch.ids, vocab_);
  std::vector<int32_t> values(all_.numel());
  auto to = values.begin();
  for (const auto* part : {&batch.ids, &sorted.ids, &sorted.order, &batch.targets, &batch.documents}) {
    std::copy(part->begin(), part->end(), to);
    if (!part->empty()) to += stride_of(tokens);
  }
  upload(all_.raw(), all_.device(), values.data(), all_.bytes());
}

}  // namespace switchyard
