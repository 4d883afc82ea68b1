// The device layer of csrc/common/device.cuh emulated on the CPU, for tests: every kernel body runs unchanged, each
// CUDA thread on a fiber, with checks that no GPU makes.
//
// Errors name kernel, block, threads and lines. Reported are: a barrier or shuffle that not all threads of the block or
// warp reach, or reach in different lines; a read of uninitialised shared memory; a data race on a word of shared
// memory; an index outside a Shared; a misaligned vector access. The order of threads and blocks depends on
// RESNET_CUDA_EMULATION_SEED. AddressSanitizer finds accesses outside a tensor. Not detected: races in global memory
// that change no result; timing.
#pragma once

#include <cxxabi.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <typeinfo>

#include "grid.h"

#define RESNET_CUDA_BODY inline

#define RESNET_CUDA_LINE_HERE (::resnet_cuda::emulation::Line{__FILE__, __LINE__})
#define RESNET_CUDA_SYNC_BLOCK() ::resnet_cuda::emulation::Grid::here().sync_block(RESNET_CUDA_LINE_HERE)
#define RESNET_CUDA_SYNC_WARP() ::resnet_cuda::emulation::Grid::here().sync_warp(RESNET_CUDA_LINE_HERE)
#define RESNET_CUDA_SHUFFLE_XOR(value, mask) ::resnet_cuda::device::shuffle_xor(value, mask, RESNET_CUDA_LINE_HERE)
#define RESNET_CUDA_SHUFFLE_UP(value, delta) ::resnet_cuda::device::shuffle_up(value, delta, RESNET_CUDA_LINE_HERE)
#define RESNET_CUDA_SHUFFLE(value, lane) ::resnet_cuda::device::shuffle(value, lane, RESNET_CUDA_LINE_HERE)
#define RESNET_CUDA_BALLOT(predicate) ::resnet_cuda::emulation::Grid::here().ballot(predicate, RESNET_CUDA_LINE_HERE)

namespace resnet_cuda {
namespace device {

inline int thread() {
  return emulation::Grid::here().thread();
}
inline int64_t block() {
  return emulation::Grid::here().block();
}
inline int64_t blocks() {
  return emulation::Grid::here().blocks();
}

template <typename T>
T shuffle_from(const T& value, int source, const emulation::Line& line) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emulation::Grid::here().shuffle(bits, source, line);
  T result;
  std::memcpy(&result, &bits, sizeof(T));
  return result;
}

template <typename T>
T shuffle(const T& value, int lane, const emulation::Line& line) {
  if (lane < 0 || lane >= emulation::kWarp) {
    emulation::fail("shuffles from lane ", lane, " in ", line);
  }
  return shuffle_from(value, lane, line);
}

template <typename T>
T shuffle_xor(const T& value, int mask, const emulation::Line& line) {
  if (mask < 0 || mask >= emulation::kWarp) {
    emulation::fail("shuffles with the mask ", mask, " in ", line);
  }
  return shuffle_from(value, (thread() % emulation::kWarp) ^ mask, line);
}

template <typename T>
T shuffle_up(const T& value, int delta, const emulation::Line& line) {
  if (delta < 0 || delta >= emulation::kWarp) {
    emulation::fail("shuffles up by ", delta, " in ", line);
  }
  const int lane = thread() % emulation::kWarp;
  return shuffle_from(value, lane >= delta ? lane - delta : lane, line);
}

inline void end_basic_block(bool never, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (never) {
    emulation::fail("takes a branch that is never taken, in ", emulation::Line{file, line});
  }
}

template <typename T>
class Shared {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) % 16 == 0));

 public:
  Shared(int begin, int count, const char* file = __builtin_FILE(), int line = __builtin_LINE())
      : begin_(begin), count_(count) {
    const int64_t end = begin + static_cast<int64_t>(count) * static_cast<int64_t>(sizeof(T));
    const int bytes = emulation::Grid::here().shared().bytes();
    if (begin < 0 || count < 0 || end > bytes) {
      const emulation::Line at{file, line};
      emulation::fail("places bytes ", begin, " to ", end, " in ", bytes, " bytes of shared memory, in ", at);
    }
    if (begin % static_cast<int>(alignof(T)) != 0 || begin % 4 != 0) {
      emulation::fail("places ", alignof(T), "-byte elements at byte ", begin, ", in ", emulation::Line{file, line});
    }
  }

  T get(int index, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    emulation::Grid& grid = emulation::Grid::here();
    check_index(index, {file, line});
    T value;
    grid.shared().load(&value, byte_of(index), sizeof(T), grid.access({file, line}));
    return value;
  }

  void set(int index, const T& value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    emulation::Grid& grid = emulation::Grid::here();
    check_index(index, {file, line});
    grid.shared().store(byte_of(index), &value, sizeof(T), grid.access({file, line}));
  }

  // Other threads may run before it.
  void add(int index, T value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    static_assert(std::is_same_v<T, int>);
    emulation::Grid& grid = emulation::Grid::here();
    check_index(index, {file, line});
    grid.yield();
    grid.shared().add(byte_of(index), value, grid.access({file, line}));
  }

 private:
  int byte_of(int index) const {
    return begin_ + index * static_cast<int>(sizeof(T));
  }

  void check_index(int index, const emulation::Line& line) const {
    if (index < 0 || index >= count_) {
      emulation::fail("index ", index, " of ", count_, " elements of shared memory in ", line);
    }
  }

  int begin_;
  int count_;
};

// Other threads may run before it.
inline int atomic_add(int* target, int value) {
  emulation::Grid::here().yield();
  const int before = *target;
  *target = before + value;
  return before;
}

inline void check_aligned(const void* pointer, std::size_t bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0) {
    emulation::fail("accesses ", bytes, " bytes at ", pointer, ", which is not aligned to that");
  }
}

// Few, so that the threads of grids that are limited by it repeat their loops.
inline int emulated_multiprocessors() {
  return static_cast<int>(emulation::environment_number("RESNET_CUDA_EMULATION_MULTIPROCESSORS", 4));
}

// "FrozenBnForward<float, float>" of Launcher::launch's lambda.
template <typename Callable>
std::string kernel_name() {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(
      abi::__cxa_demangle(typeid(Callable).name(), nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? demangled.get() : typeid(Callable).name();
  const std::string::size_type begin = name.find("launch<"), end = name.rfind(">(long");
  if (begin != std::string::npos && end != std::string::npos && end > begin) {
    name = name.substr(begin + 7, end - begin - 7);
  }
  const std::string space = "resnet_cuda::";
  for (auto at = name.find(space); at != std::string::npos; at = name.find(space)) {
    name.erase(at, space.size());
  }
  return name;
}

// Runs `body` for every thread of the grid; returns, or throws, when all have ended.
template <typename Callable>
void emulate_launch(int64_t blocks, int threads, int shared_bytes, int registers, const Callable& body) {
  if (shared_bytes % 4 != 0) {
    throw std::runtime_error("resnet_cuda emulation: shared memory of " + std::to_string(shared_bytes) + " bytes");
  }
  emulation::Grid(kernel_name<Callable>(), blocks, threads, shared_bytes, registers, [&body] { body(); }).run();
}

}  // namespace device
}  // namespace resnet_cuda
