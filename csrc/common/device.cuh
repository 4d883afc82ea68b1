// The device layer: all of CUDA that kernel bodies use, so that the tests can run every body on the CPU.
//
// A kernel body is a struct with `static constexpr int kThreads` (threads per block, a multiple of 32) and
// `RESNET_CUDA_BODY void operator()() const`, launched by Launcher (launch.cuh). Bodies use only this header and
// pack.cuh: no <<<>>>, no inline assembly, no threadIdx, no __shared__. nvcc compiles the definitions below. With
// RESNET_CUDA_EMULATE the test-only header device_emulation.h defines the same names: one fiber per thread, and checks.
#pragma once

#include "common/host_device.h"

#if defined(RESNET_CUDA_EMULATE)

#include "device_emulation.h"

#else

#include <cuda_runtime.h>

#define RESNET_CUDA_BODY __device__ __forceinline__

// Macros, because the emulation reports the line of the barrier that a thread missed.
#define RESNET_CUDA_SYNC_BLOCK() __syncthreads()
#define RESNET_CUDA_SYNC_WARP() __syncwarp()
// All 32 lanes of the warp must arrive; lane i gets the value of lane i ^ mask, or of lane i - delta (its own below
// lane `delta`). 32- and 64-bit arithmetic types.
#define RESNET_CUDA_SHUFFLE_XOR(value, mask) __shfl_xor_sync(0xffffffffu, value, mask)
#define RESNET_CUDA_SHUFFLE_UP(value, delta) __shfl_up_sync(0xffffffffu, value, delta)
// The value of lane `lane`, which may differ from lane to lane.
#define RESNET_CUDA_SHUFFLE(value, lane) __shfl_sync(0xffffffffu, value, lane)
// Bit i is set where lane i's predicate is true; the same 32 bits in every lane.
#define RESNET_CUDA_BALLOT(predicate) __ballot_sync(0xffffffffu, predicate)

namespace resnet_cuda {
namespace device {

__device__ __forceinline__ int thread() {
  return static_cast<int>(threadIdx.x);
}
__device__ __forceinline__ int64_t block() {
  return blockIdx.x;
}
__device__ __forceinline__ int64_t blocks() {
  return gridDim.x;
}

// A branch that is never taken. ptxas issues a load at the end of its basic block if nothing in the block needs the
// result, so it ends the block here: loads before this line are issued before what follows. `never` is false, but must
// depend on data that was loaded: a branch whose condition the compiler can derive is removed.
__device__ __forceinline__ void end_basic_block(bool never) {
  if (never) {
    asm volatile("trap;");
  }
}

// Aligned as wgmma's operands need it (warpgroup.cuh).
extern __shared__ __align__(1024) uint4 shared_bytes[];

// `count` elements of the block's shared memory from byte `begin` on. T is trivially copyable, of 4, 8 or 16 n bytes;
// begin is a multiple of T's alignment. Contents are undefined until set.
template <typename T>
class Shared {
 public:
  __device__ __forceinline__ Shared(int begin, int /*count*/)
      : data_(reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(shared_bytes) + begin)) {
  }
  __device__ __forceinline__ T get(int index) const {
    return data_[index];
  }
  __device__ __forceinline__ void set(int index, const T& value) const {
    data_[index] = value;
  }
  // Adds atomically, for integers: their sums do not depend on the order.
  __device__ __forceinline__ void add(int index, T value) const {
    atomicAdd(data_ + index, value);
  }

 private:
  T* data_;
};

// Adds to an integer in global memory; gives what was there. Integers only: their sums do not depend on the order.
__device__ __forceinline__ int atomic_add(int* target, int value) {
  return atomicAdd(target, value);
}

}  // namespace device
}  // namespace resnet_cuda

#endif

namespace resnet_cuda {
namespace device {

constexpr int kWarp = 32;

// Bits that are set.
RESNET_CUDA_BODY int count_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// The number of the lowest bit that is set, of at least one.
RESNET_CUDA_BODY int lowest_bit(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(bits)) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

// Shared memory that a block may have on every GPU without asking for more (cudaFuncSetAttribute): 48 KiB.
constexpr int kMostSharedBytes = 48 << 10;
// What it may ask for on sm_90.
constexpr int kMostSharedBytesSm90 = 227 << 10;

// 32-bit registers of a multiprocessor.
constexpr int kMultiprocessorRegisters = 1 << 16;
// The most that a thread has where so many threads are to run on a multiprocessor at once: a multiple of 8.
constexpr int launched_registers(int threads) {
  const int registers = kMultiprocessorRegisters / threads / 8 * 8;
  return registers < 256 ? registers : 256;
}

}  // namespace device
}  // namespace resnet_cuda
