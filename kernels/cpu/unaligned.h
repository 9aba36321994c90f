// Vector types for memory of any alignment and any contents.
#pragma once

// clang takes the alignment from a typedef alone. GCC would then lose it wherever `auto` or a template's
// argument stands for the type, and keeps it with `using`.
#ifdef __clang__
#define SWITCHYARD_UNALIGNED(name, element, bytes, alignment) \
  typedef element name __attribute__((vector_size(bytes), aligned(alignment), may_alias))
#else
#define SWITCHYARD_UNALIGNED(name, element, bytes, alignment) \
  using name = element __attribute__((vector_size(bytes), aligned(alignment), may_alias))
#endif
