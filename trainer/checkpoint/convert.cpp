#include "trainer/checkpoint/convert.h"

#include <cstring>

namespace switchyard {
namespace {

constexpr FileDTypeInfo kTypes[] = {
    {FileDType::kBool, "BOOL", 8},
    {FileDType::kF4, "F4", 4},
    {FileDType::kF6E2M3, "F6_E2M3", 6},
    {FileDType::kF6E3M2, "F6_E3M2", 6},
    {FileDType::kU8, "U8", 8},
    {FileDType::kI8, "I8", 8},
    {FileDType::kF8E5M2, "F8_E5M2", 8},
    {FileDType::kF8E4M3, "F8_E4M3", 8},
    {FileDType::kF8E8M0, "F8_E8M0", 8},
    {FileDType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 8},
    {FileDType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 8},
    {FileDType::kI16, "I16", 16},
    {FileDType::kU16, "U16", 16},
    {FileDType::kF16, "F16", 16},
    {FileDType::kBF16, "BF16", 16},
    {FileDType::kI32, "I32", 32},
    {FileDType::kU32, "U32", 32},
    {FileDType::kF32, "F32", 32},
    {FileDType::kC64, "C64", 64},
    {FileDType::kF64, "F64", 64},
    {FileDType::kI64, "I64", 64},
    {FileDType::kU64, "U64", 64},
};

// IEEE half: 1 sign, 5 exponent (bias 15), 10 mantissa bits.
struct F16 {
  uint16_t bits;
  explicit operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: mantissa * 2^-24
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
};

template <class To, class From>
To cast(From x) {
  if constexpr (std::is_same_v<From, F16> || std::is_same_v<From, BF16>)
    return static_cast<To>(static_cast<float>(x));
  else if constexpr (std::is_same_v<To, BF16>)
    return BF16(static_cast<float>(x));
  else
    return static_cast<To>(x);
}

template <class From, class To>
void convert_loop(const void* src, void* dst, int64_t n) {
  const char* in = static_cast<const char*>(src);
  char* out = static_cast<char*>(dst);
  for (int64_t i = 0; i < n; ++i) {
    From x;
    std::memcpy(&x, in + i * static_cast<int64_t>(sizeof(From)), sizeof(From));
    const To y = cast<To>(x);
    std::memcpy(out + i * static_cast<int64_t>(sizeof(To)), &y, sizeof(To));
  }
}

template <class From>
void convert_from(const void* src, FileDType to, void* dst, int64_t n) {
  if (to == FileDType::kF32) return convert_loop<From, float>(src, dst, n);
  if (to == FileDType::kBF16) return convert_loop<From, BF16>(src, dst, n);
  CHECK(to == FileDType::kF64, "conversion to ", name_of(to));
  convert_loop<From, double>(src, dst, n);
}

}  // namespace

const FileDTypeInfo& info_of(FileDType dtype) { return kTypes[static_cast<size_t>(dtype)]; }

const FileDTypeInfo* find_file_dtype(std::string_view name) {
  for (const FileDTypeInfo& type : kTypes)
    if (type.name == name) return &type;
  return nullptr;
}

FileDType file_dtype(DType dtype) {
  switch (dtype) {
    case DType::kF32: return FileDType::kF32;
    case DType::kBF16: return FileDType::kBF16;
    case DType::kF64: return FileDType::kF64;
    case DType::kI32: return FileDType::kI32;
    case DType::kI64: return FileDType::kI64;
    case DType::kU8: return FileDType::kU8;
  }
  fail(Fault::kInternal, "unknown dtype");
}

bool is_float(FileDType dtype) {
  return dtype == FileDType::kF16 || dtype == FileDType::kBF16 || dtype == FileDType::kF32 ||
         dtype == FileDType::kF64;
}

int64_t bytes_of(FileDType dtype, int64_t n) {
  CHECK(info_of(dtype).bits % 8 == 0, name_of(dtype));
  return n * (info_of(dtype).bits / 8);
}

bool is_convertible(FileDType from, FileDType to) {
  return from == to || (is_float(from) && is_float(to) && to != FileDType::kF16);
}

void convert(FileDType from, const void* src, FileDType to, void* dst, int64_t n) {
  if (n == 0) return;
  if (from == to) {
    std::memcpy(dst, src, static_cast<size_t>(bytes_of(from, n)));
    return;
  }
  CHECK(is_convertible(from, to), name_of(from), " to ", name_of(to));
  if (from == FileDType::kF32) return convert_from<float>(src, to, dst, n);
  if (from == FileDType::kBF16) return convert_from<BF16>(src, to, dst, n);
  if (from == FileDType::kF16) return convert_from<F16>(src, to, dst, n);
  convert_from<double>(src, to, dst, n);
}

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return -1;
  return count;
}

}  // namespace switchyard
