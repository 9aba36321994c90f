# The CUDA kernels as C++ for the emulator in tests/support/cuda_emulator, which also answers the runtime and cuBLAS.
# Included by the folder whose target compiles SWITCHYARD_CUDA_EMULATOR_SOURCES: properties of sources end at folders.
set(emulator ${CMAKE_SOURCE_DIR}/tests/support/cuda_emulator)
file(GLOB emulated_kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
list(REMOVE_ITEM emulated_kernels ${CMAKE_SOURCE_DIR}/kernels/cuda/matmul.cu)  # cuBLAS
set_source_files_properties(${emulated_kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS -Wno-unknown-pragmas)
file(GLOB emulator_sources CONFIGURE_DEPENDS ${emulator}/*.cpp)
# Kernels are under test, the machine that runs them is not: no instrumentation between two turns of a thread.
if(SWITCHYARD_SANITIZE)
  set_source_files_properties(${emulator}/emulator.cpp PROPERTIES COMPILE_OPTIONS "-O2;-fno-sanitize=all")
  set_source_files_properties(${emulator}/stack.cpp PROPERTIES COMPILE_OPTIONS -O2)
endif()
set(SWITCHYARD_CUDA_EMULATOR_SOURCES ${emulated_kernels} ${emulator_sources})
