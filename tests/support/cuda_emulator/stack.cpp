#include "tests/support/cuda_emulator/stack.h"

#include <cstdint>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __x86_64__
// The registers that a called function must keep, then the stack pointer. swapcontext() would make a system
// call each time and, under AddressSanitizer, clear the shadow of the whole stack.
extern "C" void cuda_emulator_switch(void** from, void* to);
asm(R"(
.text
.type cuda_emulator_switch, @function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulator_switch, . - cuda_emulator_switch
)");
#endif

namespace cuda_emulator {

namespace {

#ifdef __x86_64__
constexpr size_t kKeptRegisters = 6;

// As if `entry` had been called: after its address is popped, the stack pointer is 8 bytes off a multiple
// of 16.
void prepare(Stack& stack, void (*entry)()) {
  auto* top = reinterpret_cast<uint64_t*>(static_cast<char*>(stack.memory) + stack.bytes) - 2;
  *top = reinterpret_cast<uint64_t>(entry);
  stack.top = top - kKeptRegisters;  // all zero: fresh memory
}

void go(Stack& from, Stack& to) { cuda_emulator_switch(&from.top, to.top); }
#else
void prepare(Stack& stack, void (*entry)()) {
  getcontext(&stack.context);
  stack.context.uc_stack.ss_sp = stack.memory;
  stack.context.uc_stack.ss_size = stack.bytes;
  stack.context.uc_link = nullptr;
  makecontext(&stack.context, entry, 0);
}

void go(Stack& from, Stack& to) { swapcontext(&from.context, &to.context); }
#endif

}  // namespace

void start_on(Stack& stack, void* memory, size_t bytes, void (*entry)()) {
  stack.memory = memory;
  stack.bytes = bytes;
  prepare(stack, entry);
}

#ifdef __SANITIZE_ADDRESS__
void switch_stack(Stack& from, Stack& to) {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, to.memory, to.bytes);
  go(from, to);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

void arrived_on(Stack&, Stack& from) {
  const void* memory = nullptr;
  __sanitizer_finish_switch_fiber(nullptr, &memory, &from.bytes);
  from.memory = const_cast<void*>(memory);
}

void forget(Stack& stack) { __asan_unpoison_memory_region(stack.memory, stack.bytes); }
#else
void switch_stack(Stack& from, Stack& to) { go(from, to); }
void arrived_on(Stack&, Stack&) {}
void forget(Stack&) {}
#endif

}  // namespace cuda_emulator
