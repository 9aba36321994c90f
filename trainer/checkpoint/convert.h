// Element types as files name them, and exact or rounding conversion between them.
#pragma once

#include <string_view>
#include <vector>

#include "kernels/dtype.h"

namespace switchyard {

// In the order of the safetensors format, which is that of alignment.
enum class FileDType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64
};

struct FileDTypeInfo {
  FileDType dtype;
  std::string_view name;
  int bits;
};

const FileDTypeInfo& info_of(FileDType dtype);
inline std::string_view name_of(FileDType dtype) { return info_of(dtype).name; }
const FileDTypeInfo* find_file_dtype(std::string_view name);  // null: unknown

FileDType file_dtype(DType dtype);

// F16, BF16, F32, F64: what convert() takes.
bool is_float(FileDType dtype);

// Bytes of `n` elements; the dtype's bits must be whole bytes.
int64_t bytes_of(FileDType dtype, int64_t n);

// True if convert() does it: equal types, or both floating point.
bool is_convertible(FileDType from, FileDType to);

// dst[i] = src[i], rounded to nearest even where `to` is narrower. F16 is read, not written. Neither pointer
// need be aligned. Widening keeps every bit of information, NaN payloads included.
void convert(FileDType from, const void* src, FileDType to, void* dst, int64_t n);

// prod(shape); -1 where it leaves 63 bits.
int64_t element_count(const std::vector<int64_t>& shape);

}  // namespace switchyard
