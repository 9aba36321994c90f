// CUDA graphs: what is recorded runs when it is replayed, at its addresses, and not before.
#include "core/device/recording.h"

#include "core/device/stream.h"
#include "core/launch.h"
#include "core/ops.h"
#include "kernels/elementwise.h"
#include "tests/gpu/gpu.h"

namespace switchyard {

namespace {

using Values = std::vector<float>;

Tensor on_gpu(const Values& values) { return Tensor::from(values, {std::ssize(values)}, Device::kCuda); }

void add_into(const Tensor& sum, const Tensor& x) {
  launch(x, [&]<class T>(auto on) {
    kernels::run(on, kernels::Accumulate<T>{.y = sum.data<Acc<T>>(), .x = x.data<T>(), .n = x.numel()});
  });
}

class RecordingTest : public GpuTest {
 protected:
  // Recordings come and go before their memory.
  PrivatePool memory_;
};

TEST_F(RecordingTest, RunsWhenItIsReplayed) {
  const Tensor x = on_gpu({1, 2}), sum = on_gpu({10, 20});
  const Recording recording(memory_, [&] { add_into(sum, axpby(Var(x), Var(x), 1, 1).value()); });
  EXPECT_EQ(sum.to_vector<float>(), (Values{10, 20}));
  recording.replay();
  EXPECT_EQ(sum.to_vector<float>(), (Values{12, 24}));
  x.copy_from(on_gpu({100, 0}));  // what stands there when it is replayed
  recording.replay();
  EXPECT_EQ(sum.to_vector<float>(), (Values{212, 24}));
}

TEST_F(RecordingTest, KeepsItsMemoryToItself) {
  const Tensor x = on_gpu(Values(1000, 1)), sum = on_gpu(Values(1000, 0));
  const Recording recording(memory_, [&] { add_into(sum, axpby(Var(x), Var(x), 1, 1).value()); });
  release_cached(Device::kCuda);
  std::vector<Tensor> others;  // of the sizes that the recording used and freed
  for (int i = 0; i < 8; ++i) others.push_back(on_gpu(Values(1000, 7)));
  recording.replay();
  EXPECT_EQ(sum.to_vector<float>(), Values(1000, 2));
  for (const Tensor& other : others) EXPECT_EQ(other.to_vector<float>(), Values(1000, 7));
}

TEST_F(RecordingTest, GivesItsMemoryBack) {
  release_cached(Device::kCuda);
  const int64_t before = memory_stats(Device::kCuda).reserved;
  {
    PrivatePool memory;
    const Recording recording(memory, [] { Tensor::zeros({1 << 20}, DType::kF32, Device::kCuda); });
    EXPECT_GT(memory_stats(Device::kCuda).reserved, before);
  }
  EXPECT_EQ(memory_stats(Device::kCuda).reserved, before);
}

TEST_F(RecordingTest, RefusesHostDataAndWaiting) {
  const Tensor x = on_gpu({1, 2});
  EXPECT_ANY_THROW(Recording(memory_, [&] { on_gpu({3}); }));
  EXPECT_ANY_THROW(Recording(memory_, [&] { x.to_vector<float>(); }));
  EXPECT_ANY_THROW(Recording(memory_, [&] { synchronize_cuda(); }));
  EXPECT_EQ(x.to_vector<float>(), (Values{1, 2}));  // the stream works as before
}

}  // namespace
}  // namespace switchyard
