option(SWITCHYARD_TESTS "Build the tests" ON)
option(SWITCHYARD_BENCHMARKS "Build the benchmarks" ON)
option(SWITCHYARD_WERROR "Warnings are errors" ON)
option(SWITCHYARD_NATIVE "Compile for the processor of this machine" ON)
set(SWITCHYARD_CUDA AUTO CACHE STRING "CUDA backend: AUTO (where a CUDA compiler is found), ON, OFF, EMULATED (tests)")
set(SWITCHYARD_MPI AUTO CACHE STRING "MPI communicator: AUTO, ON, OFF")
set(SWITCHYARD_CUDA_ARCHITECTURES 90a CACHE STRING "CUDA architectures, for example 80;90a")
set(SWITCHYARD_SANITIZE "" CACHE STRING "Sanitizers: address;undefined or thread")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# CHECK stays in release builds; assert does not.
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

# One target carries the compile flags of every target of ours.
add_library(switchyard_flags INTERFACE)
target_include_directories(switchyard_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
# Of its own GCC keeps to half of Intel's vectors, with which conversions and exponentials take up to a third longer.
target_compile_options(switchyard_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra $<$<BOOL:${SWITCHYARD_WERROR}>:-Werror>>
  # A loop that clang leaves as it is runs slower, no more.
  $<$<COMPILE_LANG_AND_ID:CXX,Clang,AppleClang>:-Wno-pass-failed>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${SWITCHYARD_NATIVE}>>:-march=native;-mprefer-vector-width=512>)
# -ffp-contract=off would cost speed in kernels; same bits are asked of one build, not across builds.
if(SWITCHYARD_SANITIZE)
  list(JOIN SWITCHYARD_SANITIZE "," sanitizers)
  target_compile_options(switchyard_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(switchyard_flags INTERFACE -fsanitize=${sanitizers})
  # Half of the time to compile: checks that AddressSanitizer makes as well (null, object-size) or that only kernels
  # can fail (alignment; kernels/CMakeLists.txt has them all).
  if("undefined" IN_LIST SWITCHYARD_SANITIZE)
    target_compile_options(switchyard_flags INTERFACE -fno-sanitize=null,object-size,alignment,vptr)
  endif()
endif()
