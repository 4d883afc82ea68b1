// A fiber per emulated CUDA thread: its own stack, and the context switch to and from the launching thread.
//
// On x86-64 a switch is six pushes and pops. Other processors use ucontext, whose system calls make the tests take four
// times as long; test_ucontext.py tests it on x86-64. AddressSanitizer is notified of every switch.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define RESNET_CUDA_FIBERS_UNDER_ASAN 1
#else
#define RESNET_CUDA_FIBERS_UNDER_ASAN 0
#endif

#if defined(__x86_64__) && !defined(RESNET_CUDA_FIBERS_BY_UCONTEXT)
#define RESNET_CUDA_FIBERS_BY_ASSEMBLY 1
#else
#define RESNET_CUDA_FIBERS_BY_ASSEMBLY 0
#include <ucontext.h>
#endif

namespace resnet_cuda {
namespace emulation {

#if RESNET_CUDA_FIBERS_UNDER_ASAN
constexpr std::size_t kStackBytes = 256 << 10;  // its frames are several times as large
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif

#if RESNET_CUDA_FIBERS_BY_ASSEMBLY

using Context = void*;  // the stack pointer, below it what switch_context pops

// Saves the callee-saved registers and the stack pointer, then continues where `next` was saved. No inter-procedural
// optimisation: the compiler must not conclude from the body that other registers survive the call.
#if !defined(__clang__)
__attribute__((noipa))
#endif
__attribute__((naked, noinline)) inline void
switch_context(Context* /*saved: rdi*/, Context* /*next: rsi*/) {
  asm volatile(
      "pushq %rbp\n\t"
      "pushq %rbx\n\t"
      "pushq %r12\n\t"
      "pushq %r13\n\t"
      "pushq %r14\n\t"
      "pushq %r15\n\t"
      "movq %rsp, (%rdi)\n\t"
      "movq (%rsi), %rsp\n\t"
      "popq %r15\n\t"
      "popq %r14\n\t"
      "popq %r13\n\t"
      "popq %r12\n\t"
      "popq %rbx\n\t"
      "popq %rbp\n\t"
      "ret");
}

inline void make_context(Context* context, unsigned char* stack, void (*entry)()) {
  // slot[1]          0: entry's return address, ends backtraces; at 8 past a multiple of 16, as the calling convention
  //                  requires of the stack pointer at function entry
  // slot[0]          entry, popped by switch_context's ret
  // slot[-1]         0: rbp
  // slot[-2] to -6   0: rbx, r12, r13, r14, r15; *context points at slot[-6], from where switch_context pops
  auto* slot = reinterpret_cast<uintptr_t*>(stack + kStackBytes - 64);
  slot[1] = 0;
  slot[0] = reinterpret_cast<uintptr_t>(entry);
  for (int i = 1; i <= 6; ++i) {
    slot[-i] = 0;
  }
  *context = slot - 6;
}

#else

using Context = ucontext_t;

inline void switch_context(Context* saved, Context* next) {
  swapcontext(saved, next);
}

inline void make_context(Context* context, unsigned char* stack, void (*entry)()) {
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}

#endif

// Runs `entry(argument)`, which never returns, in turns with the thread that calls resume().
class Fiber {
 public:
  Fiber(void (*entry)(void*), void* argument) : entry_(entry), argument_(argument) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    mapped_bytes_ = kStackBytes + page;
    void* mapped = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (mapped == MAP_FAILED) {
      throw std::bad_alloc();
    }
    mapped_ = static_cast<unsigned char*>(mapped);
    mprotect(mapped_, page, PROT_NONE);  // running over the end of the stack faults
    stack_ = mapped_ + page;
    make_context(&context_, stack_, &Fiber::enter);
  }
  ~Fiber() {
#if RESNET_CUDA_FIBERS_UNDER_ASAN
    __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
    munmap(mapped_, mapped_bytes_);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From the launching thread: continues inside, until suspend().
  void resume() {
    starting() = this;
    announce_switch(&resumer_fake_stack_, stack_, kStackBytes);
    switch_context(&resumer_context_, &context_);
    finish_switch(resumer_fake_stack_, nullptr, nullptr);
  }

  // From inside: back to the launching thread, until resume().
  void suspend() {
    announce_switch(&fake_stack_, resumer_stack_, resumer_stack_bytes_);
    switch_context(&context_, &resumer_context_);
    finish_switch(fake_stack_, &resumer_stack_, &resumer_stack_bytes_);
  }

 private:
  static Fiber*& starting() {
    static thread_local Fiber* fiber = nullptr;
    return fiber;
  }

  static void enter() {
    Fiber* self = starting();
    finish_switch(nullptr, &self->resumer_stack_, &self->resumer_stack_bytes_);
    self->entry_(self->argument_);
    __builtin_trap();
  }

#if RESNET_CUDA_FIBERS_UNDER_ASAN
  static void announce_switch(void** fake_stack, const void* stack, std::size_t bytes) {
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
  }
  static void finish_switch(void* fake_stack, const void** old_stack, std::size_t* old_bytes) {
    __sanitizer_finish_switch_fiber(fake_stack, old_stack, old_bytes);
  }
#else
  static void announce_switch(void**, const void*, std::size_t) {
  }
  static void finish_switch(void*, const void**, std::size_t*) {
  }
#endif

  void (*entry_)(void*);
  void* argument_;
  unsigned char* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  unsigned char* stack_ = nullptr;
  void* fake_stack_ = nullptr;
  void* resumer_fake_stack_ = nullptr;
  const void* resumer_stack_ = nullptr;
  std::size_t resumer_stack_bytes_ = 0;
  Context context_{};
  Context resumer_context_{};
};

}  // namespace emulation
}  // namespace resnet_cuda
