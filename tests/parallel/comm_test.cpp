#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "parallel/comm/make.h"
#include "tests/support/comm_conformance.h"

namespace switchyard {
namespace {

struct Self {
  static std::vector<int> sizes() { return {1}; }
  static void run(int, const std::function<void(Group)>& body) { body(make_self()); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Self, CommConformance, Self);

struct Threads {
  static std::vector<int> sizes() { return {1, 2, 3, 4, 5}; }
  static void run(int ranks, const std::function<void(Group)>& body) { run_ranks(ranks, body); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Threads, CommConformance, Threads);

// Messages above the limit travel in pieces, as those above 2^30 bytes do.
struct ShortMessages {
  static std::vector<int> sizes() { return {2, 3}; }
  static void run(int ranks, const std::function<void(Group)>& body) {
    run_ranks(ranks, body, {.max_message_bytes = 1000});
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(ShortMessages, CommConformance, ShortMessages);

// The message of the Error{fault} that `action` throws.
std::string message_of(Fault fault, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), fault) << error.what();
    return error.what();
  }
  return "no error";
}

using std::chrono::milliseconds;

TEST(CommDeadline, NamesRankPeerGroupOperationLabelAndBytes) {
  const std::string message = message_of(Fault::kPeer, [] {
    run_ranks(3,
              [](const Group& world) {
                const Group group = world->split(world->rank() == 0, 0, "ep");
                if (world->rank() != 2) return;
                const CommLabel layer("layer 3 dispatch");
                std::vector<float> send(50), recv(60);
                group->all_to_all(send.data(), std::vector<int64_t>{40, 10}, recv.data(),
                                  std::vector<int64_t>{50, 10}, DType::kF32);
              },
              {.timeout_seconds = 0.25});
  });
  EXPECT_EQ(message,
            "rank 2 waited 0.25 s for rank 1 in group ep (2 ranks), all_to_all, layer 3 dispatch, 200 bytes: "
            "the peer hangs or is gone");
}

TEST(CommDeadline, MakesTheGroupUnusable) {
  run_ranks(2,
            [](const Group& group) {
              if (group->rank() == 0) return;
              message_of(Fault::kPeer, [&] { group->barrier(); });
              EXPECT_EQ(message_of(Fault::kPeer, [&] { group->barrier(); }),
                        "rank 1 uses group world after it failed, barrier, 0 bytes");
            },
            {.timeout_seconds = 0.05});
}

// A rank that gives up takes its message back: the late peer must not write into memory that is gone.
TEST(CommDeadline, TakesMessagesBack) {
  run_ranks(2,
            [](const Group& group) {
              std::vector<float> data(5000, 1);
              if (group->rank() == 0) std::this_thread::sleep_for(milliseconds(300));
              message_of(Fault::kPeer,
                         [&] { group->all_reduce(data.data(), std::ssize(data), DType::kF32); });
              EXPECT_EQ(data, std::vector<float>(5000, 1));
            },
            {.timeout_seconds = 0.05});
}

TEST(CommAbort, ReleasesOthersAndNamesTheRankAndReason) {
  std::string seen;
  const std::string thrown = message_of(Fault::kData, [&] {
    run_ranks(3, [&](const Group& world) {
      const Group pair = world->split(world->rank() < 2, 0, "pair");
      if (world->rank() == 2) {
        std::this_thread::sleep_for(milliseconds(100));  // the others are in the barriers below
        fail(Fault::kData, "the file is damaged");
      }
      if (world->rank() == 1) world->barrier();
      try {
        pair->barrier();
      } catch (const Error& error) {
        seen = error.what();
        throw;
      }
    });
  });
  EXPECT_EQ(thrown, "the file is damaged");
  EXPECT_EQ(
      seen,
      "rank 0 stops waiting for rank 1 in group pair (2 ranks), barrier, 0 bytes: rank 2 failed: the file is "
      "damaged");
}

TEST(CommMismatch, OfSizesIsABug) {
  const std::string message = message_of(Fault::kInternal, [] {
    run_ranks(2, [](const Group& group) {
      std::vector<float> data(8);
      group->all_reduce(data.data(), group->rank() == 0 ? 8 : 7, DType::kF32);
    });
  });
  EXPECT_NE(message.find("32 bytes"), message.npos) << message;
  EXPECT_NE(message.find("28 bytes"), message.npos) << message;
}

TEST(CommMismatch, OfOperationsIsABug) {
  const std::string message = message_of(Fault::kInternal, [] {
    run_ranks(2, [](const Group& group) {
      float data[2] = {};
      if (group->rank() == 0)
        group->all_reduce(data, 1, DType::kF32);
      else
        group->broadcast(data, 1, DType::kF32, 1);
    });
  });
  EXPECT_NE(message.find("different collectives"), message.npos) << message;
}

TEST(CommSum, OfBytesIsRefused) {
  const std::string message = message_of(Fault::kInternal, [] {
    run_ranks(2, [](const Group& group) {
      uint8_t byte = 1;
      group->all_reduce(&byte, 1, DType::kU8);
    });
  });
  EXPECT_EQ(message, "arrays of u8 cannot be summed");
}

TEST(CommLabel, Nests) {
  EXPECT_EQ(CommLabel::current(), "");
  {
    const CommLabel outer("layer 1");
    {
      const CommLabel inner("layer 1 dispatch");
      EXPECT_EQ(CommLabel::current(), "layer 1 dispatch");
    }
    EXPECT_EQ(CommLabel::current(), "layer 1");
  }
  EXPECT_EQ(CommLabel::current(), "");
}

}  // namespace
}  // namespace switchyard
