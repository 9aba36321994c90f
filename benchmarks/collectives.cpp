// Time and bandwidth of the collectives.
//   bench_collectives [RANKS]             on threads (default 2)
//   mpirun -n N bench_collectives         on MPI, beside MPI's own calls: ratio = MPI's time / ours
// Bytes are those of one rank's array; GB/s counts what a rank sends (docs/collectives.md).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "benchmarks/collectives/plain.h"
#include "parallel/comm/make.h"

namespace switchyard {
namespace {

constexpr int kRepeats = 7;

// Seconds of one call: the best of several series of calls, of the slowest rank.
double seconds_of(const Group& group, int64_t bytes, const std::function<void()>& call) {
  const int64_t calls = std::clamp<int64_t>((32 << 20) / bytes, 1, 300);
  call();
  double best = 1e9;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    group->barrier();
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < calls; ++i) call();
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    group->all_reduce(&seconds, 1, DType::kF64, ReduceOp::kMax);
    best = std::min(best, seconds / static_cast<double>(calls));
  }
  return best;
}

void report(const Group& group, const char* name, int64_t bytes, double sent,
            const std::function<void()>& ours, const std::function<void()>& plain) {
  const double seconds = seconds_of(group, bytes, ours);
  const double plain_seconds = plain ? seconds_of(group, bytes, plain) : 0;
  if (group->rank() != 0) return;
  std::printf("%-15s %10ld bytes %10.1f us %8.2f GB/s", name, static_cast<long>(bytes), seconds * 1e6,
              sent / seconds * 1e-9);
  if (plain) std::printf("   MPI %10.1f us, ratio %.2f", plain_seconds * 1e6, plain_seconds / seconds);
  std::printf("\n");
  std::fflush(stdout);
}

void bench(const Group& group) {
  const int64_t n = group->size();
  for (int64_t bytes = 1 << 10; bytes <= 64 << 20; bytes *= 4) {
    const int64_t block = bytes / 4 / n, count = block * n;
    std::vector<float> x(count, 1.0F), y(count);
    const std::vector<int64_t> counts(n, block);
    const double others = static_cast<double>(block * 4 * (n - 1));
    const bool plain = plain_is_there();
    auto only = [&](std::function<void()> call) { return plain ? std::move(call) : nullptr; };
    report(
        group, "all_reduce", bytes, 2 * others, [&] { group->all_reduce(y.data(), count, DType::kF32); },
        only([&] { plain_all_reduce(y.data(), count); }));
    report(
        group, "all_to_all", bytes, others,
        [&] { group->all_to_all(x.data(), counts, y.data(), counts, DType::kF32); },
        only([&] { plain_all_to_all(x.data(), y.data(), block); }));
    report(group, "all_gather", bytes, others,
           [&] { group->all_gather(x.data(), y.data(), block, DType::kF32); }, {});
    report(group, "reduce_scatter", bytes, others,
           [&] { group->reduce_scatter(x.data(), y.data(), block, DType::kF32); }, {});
  }
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  using namespace switchyard;
  try {
    if (launch_info().world_size == 1) {
      run_ranks(argc > 1 ? std::atoi(argv[1]) : 2, bench);
    } else {
      bench(make_world({}));
      finalize_world();
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    abort_world(error.exit_code());
  }
}
