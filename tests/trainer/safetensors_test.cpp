// The reader refuses whatever breaks a rule of the format and says where; the
// writer's files are the reference's.
#include "trainer/checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "tests/trainer/temporary_folder.h"

namespace switchyard {
namespace {

// u64 length | header | data
std::string file_bytes(const std::string& header, size_t data_bytes, uint64_t length) {
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + std::string(data_bytes, 'x');
}
std::string file_bytes(const std::string& header, size_t data_bytes) {
  return file_bytes(header, data_bytes, header.size());
}

class Safetensors : public ::testing::Test {
 protected:
  fs::path write(const std::string& bytes) {
    const fs::path path = fs::path(folder_ / "t.safetensors");
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  // The message with which a file is refused.
  std::string refusal(const std::string& bytes) {
    try {
      SafetensorsFile file(write(bytes));
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::kData);
      return error.what();
    }
    return "";
  }

  TemporaryFolder folder_;
};

struct Hostile {
  const char* what;
  std::string bytes;
  const char* message;  // part of it
};

std::vector<Hostile> hostile_files() {
  const std::string f32 = R"("dtype":"F32")";
  const auto one = [&](const std::string& fields, size_t data = 8) {
    return file_bytes(R"({"a":{)" + fields + "}}", data);
  };
  const std::string deep = R"({"a":{"dtype":"F32","shape":[[)" + std::string(5000, '[');
  return {
      {"empty", "", "too short"},
      {"seven bytes", "1234567", "too short"},
      {"length beyond the file", file_bytes("{}", 0, 3), "header of 3 bytes"},
      {"length of 2^63", file_bytes("{}", 0, uint64_t{1} << 63), "at most"},
      {"length of 2^64 - 1", file_bytes("{}", 0, UINT64_MAX), "at most"},
      {"length above the bound", file_bytes("{}", 0, 100'000'001), "at most"},
      {"no header", file_bytes("", 0), "begin with {"},
      {"a leading space", file_bytes(" {}", 0), "begin with {"},
      {"an array", file_bytes("[]", 0), "begin with {"},
      {"no JSON", file_bytes("{a}", 0), "not valid JSON"},
      {"JSON cut short", file_bytes(R"({"a":{"dtype")", 0), "not valid JSON"},
      {"something after the object", file_bytes("{}x", 0), "not valid JSON"},
      {"two objects", file_bytes("{}{}", 0), "not valid JSON"},
      {"a NUL after the object", file_bytes(std::string("{}\0", 3), 0), "not valid JSON"},
      {"a trailing comma", file_bytes(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},})", 8),
       "not valid JSON"},
      {"a comment", file_bytes("{/* */}", 0), "not valid JSON"},
      {"broken UTF-8", file_bytes("{\"\xff\":1}", 0), "not valid JSON"},
      {"a lone surrogate", file_bytes(R"({"\ud800":1})", 0), "not valid JSON"},
      {"NaN", file_bytes(R"({"a":NaN})", 0), "not valid JSON"},
      {"a number beyond double", one(f32 + R"(,"shape":[1e999],"data_offsets":[0,8])"), "not valid JSON"},
      {"deep nesting", file_bytes(deep, 0), "nested deeper"},
      {"a deep array as tensor", file_bytes("{\"a\":" + std::string(100'000, '['), 0), "nested deeper"},
      {"a tensor that is a number", file_bytes(R"({"a":1})", 0), "is not an object"},
      {"a tensor that is an array", file_bytes(R"({"a":[]})", 0), "is not an object"},
      {"a tensor that is null", file_bytes(R"({"a":null})", 0), "is not an object"},
      {"the same tensor twice",
       file_bytes(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           8),
       "duplicate key \"a\""},
      {"the same tensor twice by an escape",
       file_bytes(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           8),
       "duplicate key \"a\""},
      {"a field twice", one(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"),
       "duplicate key \"dtype\""},
      {"metadata twice", file_bytes(R"({"__metadata__":{},"__metadata__":{}})", 0), "duplicate key"},
      {"a metadata key twice", file_bytes(R"({"__metadata__":{"k":"1","k":"2"}})", 0), "duplicate key \"k\""},
      {"metadata that is a string", file_bytes(R"({"__metadata__":"pt"})", 0), "is not an object"},
      {"metadata with a number", file_bytes(R"({"__metadata__":{"k":1}})", 0), "no string"},
      {"metadata that nests", file_bytes(R"({"__metadata__":{"k":{}}})", 0), "no string"},
      {"no dtype", one(R"("shape":[2],"data_offsets":[0,8])"), "has no dtype"},
      {"no shape", one(f32 + R"(,"data_offsets":[0,8])"), "has no shape"},
      {"no offsets", one(f32 + R"(,"shape":[2])"), "has no data_offsets"},
      {"an unknown dtype", one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"), "unknown dtype \"F31\""},
      {"a dtype in small letters", one(R"("dtype":"f32","shape":[2],"data_offsets":[0,8])"), "unknown dtype"},
      {"a dtype that is a number", one(R"("dtype":4,"shape":[2],"data_offsets":[0,8])"), "no string"},
      {"a shape that is a number", one(f32 + R"(,"shape":2,"data_offsets":[0,8])"), "no array"},
      {"a negative size", one(f32 + R"(,"shape":[-2],"data_offsets":[0,8])"), "no size"},
      {"a fractional size", one(f32 + R"(,"shape":[2.0],"data_offsets":[0,8])"), "no size"},
      {"a size that is a string", one(f32 + R"(,"shape":["2"],"data_offsets":[0,8])"), "no size"},
      {"a size that is true", one(f32 + R"(,"shape":[true],"data_offsets":[0,8])"), "no size"},
      {"a size beyond 63 bits", one(f32 + R"(,"shape":[18446744073709551615],"data_offsets":[0,8])"),
       "in its shape"},
      {"a size beyond 64 bits", one(f32 + R"(,"shape":[18446744073709551616],"data_offsets":[0,8])"),
       "no size"},
      {"a product that wraps to 2", one(f32 + R"(,"shape":[4294967296,4294967296,2],"data_offsets":[0,8])"),
       "too large"},
      {"bytes that wrap to 0", one(f32 + R"(,"shape":[4611686018427387904],"data_offsets":[0,0])", 0),
       "too large"},
      {"65 dimensions",
       one(
           f32 + ",\"shape\":[1" +
               [] {
                 std::string s;
                 for (int i = 0; i < 64; ++i) s += ",1";
                 return s;
               }() +
               R"(],"data_offsets":[0,4])",
           4),
       "array of more than"},
      {"one offset", one(f32 + R"(,"shape":[2],"data_offsets":[8])"), "two numbers"},
      {"three offsets", one(f32 + R"(,"shape":[2],"data_offsets":[0,8,8])"), "two numbers"},
      {"offsets that are no array", one(f32 + R"(,"shape":[2],"data_offsets":{"0":8})"), "two numbers"},
      {"a negative offset", one(f32 + R"(,"shape":[2],"data_offsets":[-8,0])"), "no size"},
      {"offsets the wrong way round", one(f32 + R"(,"shape":[2],"data_offsets":[8,0])"), "before it begins"},
      {"too few bytes for the shape", one(f32 + R"(,"shape":[3],"data_offsets":[0,8])"), "takes 12"},
      {"too many bytes for the shape", one(f32 + R"(,"shape":[1],"data_offsets":[0,8])"), "takes 4"},
      {"bytes for an empty tensor", one(f32 + R"(,"shape":[0],"data_offsets":[0,8])"), "takes 0"},
      {"a hole before the first", one(f32 + R"(,"shape":[1],"data_offsets":[4,8])"), "hole"},
      {"a hole between two",
       file_bytes(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
           12),
       "hole"},
      {"an overlap",
       file_bytes(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
           12),
       "overlap"},
      {"one range for two tensors",
       file_bytes(
           R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
           8),
       "overlap"},
      {"data beyond the file", one(f32 + R"(,"shape":[2],"data_offsets":[0,8])", 7), "which has 7"},
      {"data left over", one(f32 + R"(,"shape":[2],"data_offsets":[0,8])", 9), "tensors cover 8"},
      {"data without tensors", file_bytes("{}", 1), "tensors cover 0"},
      {"half a byte", file_bytes(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1),
       "whole bytes"},
      {"six bits", file_bytes(R"({"a":{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,1]}})", 1),
       "whole bytes"},
  };
}

TEST_F(Safetensors, HostileFilesAreRefusedWithTheFilesNameAndTheReason) {
  for (const Hostile& hostile : hostile_files()) {
    const std::string message = refusal(hostile.bytes);
    EXPECT_NE(message.find(hostile.message), std::string::npos) << hostile.what << ": " << message;
    EXPECT_NE(message.find("t.safetensors"), std::string::npos) << hostile.what;
    EXPECT_EQ(message.find('\n'), std::string::npos) << hostile.what;
    EXPECT_LT(message.size(), 600u) << hostile.what;
  }
}

TEST_F(Safetensors, NamesInMessagesStayOnOneLineAndShort) {
  const std::string name = R"(x\ny\u0000)" + std::string(5000, 'z');
  const std::string message = refusal(file_bytes("{\"" + name + "\":1}", 0));
  EXPECT_NE(message.find("x\\x0ay\\x00zzz"), std::string::npos) << message;
  EXPECT_LT(message.size(), 500u);
}

TEST_F(Safetensors, WhatIsNoFileIsRefused) {
  EXPECT_THROW(SafetensorsFile(fs::path(folder_ / "nothing")), Error);
  const fs::path directory = fs::path(folder_ / "directory");
  fs::create_directory(directory);
  EXPECT_THROW(SafetensorsFile{directory}, Error);
}

TEST_F(Safetensors, WhatTheFormatAllowsIsRead) {
  EXPECT_EQ(refusal(file_bytes("{}", 0)), "");
  EXPECT_EQ(refusal(file_bytes("{}     ", 0)), "");
  EXPECT_EQ(refusal(file_bytes(R"({"__metadata__":{"format":"pt"}})", 0)), "");
  EXPECT_EQ(refusal(file_bytes(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4)), "");
  EXPECT_EQ(refusal(file_bytes(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}})", 2)), "");
  const SafetensorsFile file(write(file_bytes(
      R"({"b":{"data_offsets":[0,4],"shape":[1,1],"dtype":"F32"},"e":{"dtype":"I64","shape":[0,3],"data_offsets":[4,4]},"a":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}})",
      7)));
  EXPECT_EQ(file.tensors().at("b").shape, (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(file.tensors().at("a").bytes, "xxx");
  EXPECT_TRUE(file.tensors().at("e").bytes.empty());
}

TensorSource source(const std::string& name, FileDType dtype, std::vector<int64_t> shape, std::string bytes) {
  return {.name = name, .dtype = dtype, .shape = std::move(shape), .produce = [bytes](const Emit& emit) {
            for (const char& byte : bytes) emit(&byte, 1);
          }};
}

TEST_F(Safetensors, TheWritersFileIsTheReferences) {
  const fs::path path = fs::path(folder_ / "w.safetensors");
  const FileSum sum = write_safetensors(
      path, {source("b", FileDType::kU8, {1}, "1"), source("z", FileDType::kF32, {1}, "2222"),
             source("c", FileDType::kF32, {1}, "3333"), source("e", FileDType::kF64, {0}, "")});
  const std::string bytes = read_file(path);
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"e":{"dtype":"F64","shape":[0],"data_offsets":[0,0]},)"
      R"("c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"z":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},)"
      R"("b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})";
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(bytes.substr(8, header.size()), header);
  EXPECT_EQ(bytes.substr(8 + length), "333322221");
  EXPECT_EQ(sum, (FileSum{static_cast<int64_t>(bytes.size()), xxh3_of(bytes)}));
}

TEST_F(Safetensors, AFailedWriteLeavesNothing) {
  TensorSource failing = source("a", FileDType::kF32, {1}, "1234");
  failing.produce = [](const Emit&) { fail(Fault::kData, "no"); };
  EXPECT_THROW(write_safetensors(fs::path(folder_ / "w.safetensors"), {failing}), Error);
  EXPECT_TRUE(fs::is_empty(fs::path(folder_ / ".")));
}

// The value of a half by its definition.
double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

TEST(Convert, EveryHalfWidensExactly) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    float value = 0;
    convert(FileDType::kF16, &bits, FileDType::kF32, &value, 1);
    const double expected = half_value(bits);
    EXPECT_TRUE(std::isnan(expected) ? std::isnan(value) : static_cast<double>(value) == expected) << i;
    EXPECT_EQ(std::signbit(value), (bits & 0x8000) != 0) << i;
  }
}

TEST(Convert, BFloat16WidensAndComesBack) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    float value = 0;
    uint16_t back = 0;
    convert(FileDType::kBF16, &bits, FileDType::kF32, &value, 1);
    EXPECT_EQ(std::bit_cast<uint32_t>(value), i << 16);
    convert(FileDType::kF32, &value, FileDType::kBF16, &back, 1);
    EXPECT_TRUE(std::isnan(value) || back == bits) << i;
  }
}

}  // namespace
}  // namespace switchyard
