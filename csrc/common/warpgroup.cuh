// Thin wrappers of sm_90a's instructions: matrix products by a warpgroup (wgmma), barriers in shared memory (mbarrier),
// bulk copies into shared memory, named barriers, reallocation of registers between warpgroups (setmaxnreg).
//
// For kernels in files named *_sm90a.cu, which are compiled for sm_90a only. Their bodies have
// `static constexpr int kWarpgroups`; they may have more than 48 KiB of shared memory. In the emulation
// warpgroup_emulation.h has the same names, with checks that no GPU makes.
//
// Sources: PTX ISA 8.0 to 9.0, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions", "mbarrier",
// "cp.async.bulk", "setmaxnreg"; CUTLASS, cited by file below.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "common/device.cuh"

namespace resnet_cuda {
namespace device {

constexpr int kWarpgroup = 128;  // threads
constexpr int kProductRows = 64;
constexpr int kProductDepth = 16;  // k of one product, 16-bit types; 8 of TF32, as many bytes

// An operand in shared memory consists of rows of 128 bytes, eight of which are an atom: aligned to 1024 bytes, it has
// byte b of the rows at place swizzled(b). CUTLASS, cute/atom/mma_traits_sm90_gmma.hpp: Swizzle<3, 4, 3>.
constexpr int kSwizzledRow = 128;
constexpr int kSwizzleAtom = 1024;
constexpr int kRowElements = kSwizzledRow / 2;              // 16-bit types
constexpr int kRowProducts = kRowElements / kProductDepth;  // of TF32 as many
template <typename T>
constexpr int kRowElementsOf = kSwizzledRow / static_cast<int>(sizeof(T));

// Bits 4 to 6 of a place are its 16 bytes' number in the row; bits 7 to 9, the row's number in the atom, are added to
// them by exclusive or.
RESNET_CUDA_HOST_DEVICE constexpr int swizzled(int byte) {
  return byte ^ ((byte >> 3) & 0x70);
}

// What a row holds. K-major: 64 elements of k of one m or n. MN-major: 64 elements of m or n of
// one k. The values are those of wgmma's imm-trans-a and imm-trans-b.
enum class Major : int { kK = 0, kMN = 1 };

// wgmma's matrix descriptor of an operand. Bits 0-13 the address, 16-29 the leading and 32-45 the stride byte offset,
// each without its lowest four bits; 62-63 the swizzle, 1 for 128 bytes. CUTLASS, cute/arch/mma_sm90_desc.hpp.
struct Descriptor {
  uint64_t bits;

  // The descriptor with its address advanced by `bytes`, a multiple of 16 within shared memory.
  RESNET_CUDA_HOST_DEVICE Descriptor advanced(int bytes) const {
    return {bits + static_cast<uint64_t>(bytes >> 4)};
  }
};

// Bytes between the parts of an operand that two successive products read, kProductDepth of k apart: in the same rows
// (their swizzle depends on the address), or 16 rows further. CUTLASS, cute/atom/mma_traits_sm90_gmma.hpp:
// DescriptorIterator.
template <Major kMajor>
constexpr int kProductStep = kMajor == Major::kK ? kProductDepth * 2 : kProductDepth * kSwizzledRow;

namespace warpgroup_detail {

RESNET_CUDA_HOST_DEVICE constexpr uint64_t encoded(uint32_t bytes) {
  return (bytes & 0x3ffff) >> 4;
}

// kK: eight rows of m or n, then the next eight; the leading offset is not used and 1 by convention. kMN: the
// stride leads from eight k to the next eight, the leading offset from 64 elements of m or n to the next 64. CUTLASS,
// cute/atom/mma_traits_sm90_gmma.hpp, make_gmma_desc: canonical layouts of LayoutType::B128.
template <Major kMajor>
RESNET_CUDA_HOST_DEVICE constexpr uint64_t descriptor_bits(uint32_t address, int column_bytes) {
  constexpr uint64_t kSwizzle128 = 1;
  const uint64_t leading = kMajor == Major::kK ? 1 : encoded(static_cast<uint32_t>(column_bytes));
  return encoded(address) | leading << 16 | encoded(kSwizzleAtom) << 32 | kSwizzle128 << 62;
}

}  // namespace warpgroup_detail

// Element `index` of a thread's part of the result: its row, and its column. PTX ISA, "Accumulator D" of wgmma;
// CUTLASS, cute/atom/mma_traits_sm90_gmma.hpp: CLayout_64xN.
RESNET_CUDA_HOST_DEVICE constexpr int result_row(int thread, int index) {
  return thread / kWarp % 4 * 16 + thread % kWarp / 4 + index / 2 % 2 * 8;
}
RESNET_CUDA_HOST_DEVICE constexpr int result_column(int thread, int index) {
  return index / 4 * 8 + thread % 4 * 2 + index % 2;
}

// The stage that a role is at, and the parity of the phase that it waits for next: 0 for those who wait until a stage
// is full, 1 for those who wait until it is empty, which it is at first.
template <int kStages>
struct Ring {
  int stage;
  int parity;

  RESNET_CUDA_HOST_DEVICE explicit Ring(int first_parity) : stage(0), parity(first_parity) {
  }
  RESNET_CUDA_HOST_DEVICE void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace device
}  // namespace resnet_cuda

#if defined(RESNET_CUDA_EMULATE)

#include "warpgroup_emulation.h"

#else

#include "common/wgmma_operands.h"

namespace resnet_cuda {
namespace device {

__device__ __forceinline__ uint32_t shared_address(int place) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared_bytes)) + static_cast<uint32_t>(place);
}

// A barrier of 8 bytes in shared memory, at byte `place`. A phase ends when `arrivals` have arrived and all bytes that
// they announced have been copied; the next one then begins. CUTLASS, cutlass/arch/barrier.h.
class PhaseBarrier {
 public:
  __device__ __forceinline__ explicit PhaseBarrier(int place) : address_(shared_address(place)) {
  }
  // By one thread, which then calls publish_barriers(); the others may use it after the next RESNET_CUDA_SYNC_BLOCK.
  __device__ __forceinline__ void init(int arrivals) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(address_), "r"(arrivals) : "memory");
  }
  __device__ __forceinline__ void arrive() const {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(address_) : "memory");
  }
  // Arrives, and adds `bytes` to the bytes that copy_bulk must bring in this phase.
  __device__ __forceinline__ void arrive_and_expect(int bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(address_), "r"(bytes) : "memory");
  }
  // Waits for the end of a phase: the first, third... have parity 0, the others 1. Before the first phase has ended,
  // parity 1 does not wait. A thread waits for the phases in their order and leaves none out.
  __device__ __forceinline__ void wait(int parity) const {
    uint32_t ended;
    do {
      asm volatile(
          "{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
          : "=r"(ended)
          : "r"(address_), "r"(parity)
          : "memory");
    } while (ended == 0);
  }
  __device__ __forceinline__ uint32_t address() const {
    return address_;
  }

 private:
  uint32_t address_;
};

__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
}

// Orders earlier writes to shared memory, by this thread and by threads that it has synchronised with, before later
// wgmma and bulk copies that this thread starts, or threads that synchronise with it afterwards. It also waits for this
// thread's loads (MEMBAR.ALL.CTA): threads with loads in flight leave the fence to the threads that start wgmma.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

// Starts a copy from global memory to byte `place`; it arrives in `barrier`. All three are multiples of 16 bytes.
// CUTLASS, cute/arch/copy_sm90_tma.hpp: SM90_BULK_COPY_G2S.
__device__ __forceinline__ void copy_bulk(int place, const void* source, int bytes, const PhaseBarrier& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :
               : "r"(shared_address(place)), "l"(source), "r"(bytes), "r"(barrier.address())
               : "memory");
}

// Waits for `threads` threads, whole warps, at barrier `number`, 1 to 15.
__device__ __forceinline__ void sync_threads(int number, int threads) {
  asm volatile("bar.sync %0, %1;" : : "r"(number), "r"(threads) : "memory");
}

// The warps of a warpgroup release registers, or wait until they get them; the number per thread: a multiple of 8 from
// 24 to 256. CUTLASS, cutlass/arch/reg_reconfig.h.
template <int kRegisters>
__device__ __forceinline__ void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kRegisters));
}

// The descriptor of an operand at byte `place`, which lies in an atom's first row. kMN: `column_bytes` lead from 64
// elements of m or n to the next 64.
template <Major kMajor>
__device__ __forceinline__ Descriptor operand_at(int place, int column_bytes = 0) {
  return {warpgroup_detail::descriptor_bits<kMajor>(shared_address(place), column_bytes)};
}

// A thread's part of 64 x kColumns sums in float32.
template <int kColumns>
class Sums {
 public:
  static constexpr int kCount = kColumns / 2;

  __device__ __forceinline__ float get(int index) const {
    return value[index];
  }
  // After finish_products.
  __device__ __forceinline__ void add(int index, float more) {
    value[index] += more;
  }

  // Zeros, though the first product overwrites them: what is not set would make ptxas before CUDA 12.9 wait for each
  // product by itself (its message C7515).
  float value[kCount] = {};
};

// Before the first product of a row of products into `sums`. Keeps the compiler from moving accesses to `sums` across,
// as CUTLASS's warpgroup_fence_operand does (cute/arch/mma_sm90_gmma.hpp).
template <int kColumns>
__device__ __forceinline__ void begin_products(Sums<kColumns>& sums) {
#pragma unroll
  for (int i = 0; i < Sums<kColumns>::kCount; ++i) {
    asm volatile("" : "+f"(sums.value[i]) : : "memory");
  }
  asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
}

// Nearest number of TF32, which has float32's exponent and 10 bits behind the point; to even where two are as near.
// PTX ISA 7.8, "cvt".
__device__ __forceinline__ float rounded_to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}

// sums = a b^T, added to what they were where `accumulate`: a is 64 x 16, b is kColumns x 16, T is BFloat16 or Half; or
// a is 64 x 8, b is kColumns x 8, T is float: TF32, of which wgmma takes the bits without rounding, both kK. The
// whole warpgroup takes part. Runs on until finish_products; the operands and `sums` must not be written until then.
template <typename T, Major kMajorA, Major kMajorB, int kColumns>
__device__ __forceinline__ void
multiply(Sums<kColumns>& sums, const Descriptor& a, const Descriptor& b, bool accumulate) {
  static_assert(kColumns == 128 || kColumns == 256);
  constexpr bool kBFloat16 = std::is_same_v<T, torch::headeronly::BFloat16>;
  constexpr bool kTf32 = std::is_same_v<T, float>;
  static_assert(kBFloat16 || kTf32 || std::is_same_v<T, torch::headeronly::Half>);
  static_assert(!kTf32 || (kMajorA == Major::kK && kMajorB == Major::kK));
  [[maybe_unused]] constexpr int kTransA = static_cast<int>(kMajorA);
  [[maybe_unused]] constexpr int kTransB = static_cast<int>(kMajorB);
  float(&value)[Sums<kColumns>::kCount] = sums.value;
  const int scale = accumulate ? 1 : 0;
  if constexpr (kColumns == 128) {
    if constexpr (kTf32) {
      RESNET_CUDA_WGMMA_128_TF32();
    } else if constexpr (kBFloat16) {
      RESNET_CUDA_WGMMA_128("bf16.bf16");
    } else {
      RESNET_CUDA_WGMMA_128("f16.f16");
    }
  } else {
    if constexpr (kTf32) {
      RESNET_CUDA_WGMMA_256_TF32();
    } else if constexpr (kBFloat16) {
      RESNET_CUDA_WGMMA_256("bf16.bf16");
    } else {
      RESNET_CUDA_WGMMA_256("f16.f16");
    }
  }
}

// Makes one group of the products since the last one.
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}

// Waits until all but the last kPending groups are done: their operands are free.
template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
}

// Waits for all groups: `sums` may be read.
template <int kColumns>
__device__ __forceinline__ void finish_products(Sums<kColumns>& sums) {
  wait_products<0>();
#pragma unroll
  for (int i = 0; i < Sums<kColumns>::kCount; ++i) {
    asm volatile("" : "+f"(sums.value[i]) : : "memory");
  }
}

}  // namespace device
}  // namespace resnet_cuda

#endif

namespace resnet_cuda {
namespace device {

// From the registers that the launch gave a thread: raises or lowers them. All warps of a warpgroup.
template <int kLaunched, int kRegisters>
RESNET_CUDA_BODY void take_registers() {
  if constexpr (kRegisters > kLaunched) {
    raise_registers<kRegisters>();
  } else {
    lower_registers<kRegisters>();
  }
}

// As wgmma is to find them in shared memory: float rounded to TF32.
template <typename T, int N>
RESNET_CUDA_BODY void round_operands(T (&value)[N]) {
  if constexpr (std::is_same_v<T, float>) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      value[i] = rounded_to_tf32(value[i]);
    }
  }
}

}  // namespace device
}  // namespace resnet_cuda
