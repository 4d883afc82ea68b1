// A matrix product that uses all of common/warpgroup.cuh, to check a GPU against the emulation.
#pragma once

#include <type_traits>

#include "common/warpgroup.cuh"

namespace resnet_cuda {

// 16-bit elements are only moved, so their type does not matter.
template <typename T>
using ElementBits = std::conditional_t<sizeof(T) == 2, uint16_t, T>;

template <typename T>
struct alignas(16) UnitOf {
  static constexpr int kElements = 16 / static_cast<int>(sizeof(T));
  T element[kElements];
};

// How an operand of kSide rows of `depth` elements lies in shared memory and, for bulk copies, in global memory: per
// row of k, 64 of 16 bits or 32 of TF32, a part of kSide * 128 bytes.
template <typename T, device::Major kMajor, int kSide>
struct SwizzledOperand {
  using Unit = UnitOf<T>;
  static constexpr int kRow = device::kRowElementsOf<T>;
  static constexpr int kBytes = kSide * device::kSwizzledRow;  // of a part
  static constexpr int kUnits = kBytes / static_cast<int>(sizeof(Unit));
  // Bytes of what one row of 128 bytes spans: kRow elements of k, for all of m or n; or 64 of m or n, for 64 of k.
  static constexpr int kColumnBytes = kMajor == device::Major::kK ? kBytes : 64 * device::kSwizzledRow;

  // Unit number `index` of a part, 0 to kUnits - 1, in the order of rows, taken from the matrix [kSide, depth]; and its
  // byte in the part.
  RESNET_CUDA_BODY static Unit unit(const T* matrix, int depth, int part, int index) {
    const int row = index / 8;
    const int chunk = index % 8;
    Unit unit;
    for (int i = 0; i < Unit::kElements; ++i) {
      const int in_row = chunk * Unit::kElements + i;
      const int side = kMajor == device::Major::kK ? row : row / 64 * 64 + in_row;
      const int of_depth = kMajor == device::Major::kK ? in_row : row % 64;
      unit.element[i] = matrix[side * depth + part * kRow + of_depth];
    }
    device::round_operands(unit.element);
    return unit;
  }
  RESNET_CUDA_HOST_DEVICE static int place(int index) {
    return device::swizzled(index * static_cast<int>(sizeof(Unit)));
  }
};

// Index: unit of `image`, the operand as copy_bulk takes it.
template <typename T, device::Major kMajor, int kSide>
struct PackOperand {
  using Operand = SwizzledOperand<T, kMajor, kSide>;
  using Unit = UnitOf<T>;
  const T* matrix;  // [kSide, depth]
  unsigned char* image;
  int depth;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const auto part = static_cast<int>(index / Operand::kUnits);
    const auto in_part = static_cast<int>(index % Operand::kUnits);
    const Unit unit = Operand::unit(matrix, depth, part, in_part);
    *reinterpret_cast<Unit*>(image + static_cast<int64_t>(part) * Operand::kBytes + Operand::place(in_part)) = unit;
  }
};

// result = a b^T in one block: the last warpgroup writes a into shared memory and starts the copies of b, the other two
// multiply 64 rows each.
template <typename T, int kColumns, device::Major kMajorA, device::Major kMajorB>
struct WarpgroupProduct {
  static constexpr int kWarpgroups = 3;
  static constexpr int kThreads = kWarpgroups * device::kWarpgroup;
  static constexpr int kRows = 2 * device::kProductRows;
  using Bits = ElementBits<T>;
  using A = SwizzledOperand<Bits, kMajorA, kRows>;
  using B = SwizzledOperand<Bits, kMajorB, kColumns>;
  using Unit = UnitOf<Bits>;

  static constexpr int kStages = 2;
  static constexpr int kStagesA = 0;
  static constexpr int kStagesB = kStagesA + kStages * A::kBytes;
  static constexpr int kFull = kStagesB + kStages * B::kBytes;  // barriers of 8 bytes
  static constexpr int kEmpty = kFull + kStages * 8;
  static constexpr int kSharedBytes = kEmpty + kStages * 8;

  static constexpr int kProducerWarps = device::kWarpgroup / device::kWarp;
  static constexpr int kConsumers = kThreads - device::kWarpgroup;
  static constexpr int kConsumerWarps = kConsumers / device::kWarp;

  const Bits* a;           // [kRows, depth]
  const unsigned char* b;  // PackOperand's image of [kColumns, depth]
  float* result;           // [kRows, kColumns]
  int depth;               // a multiple of A::kRow

  RESNET_CUDA_BODY void operator()() const {
    const int thread = device::thread();
    if (thread == 0) {
      for (int stage = 0; stage < kStages; ++stage) {
        full(stage).init(kProducerWarps + 1);
        empty(stage).init(kConsumerWarps);
      }
      device::publish_barriers();
    }
    RESNET_CUDA_SYNC_BLOCK();
    if (thread >= kConsumers) {
      device::lower_registers<152>();
      produce(thread - kConsumers);
    } else {
      device::raise_registers<176>();
      consume(thread);
    }
  }

 private:
  RESNET_CUDA_BODY static device::PhaseBarrier full(int stage) {
    return device::PhaseBarrier(kFull + stage * 8);
  }
  RESNET_CUDA_BODY static device::PhaseBarrier empty(int stage) {
    return device::PhaseBarrier(kEmpty + stage * 8);
  }

  RESNET_CUDA_BODY void produce(int thread) const {
    device::Ring<kStages> ring(1);
    for (int part = 0; part < depth / A::kRow; ++part) {
      empty(ring.stage).wait(ring.parity);
      if (thread == 0) {
        full(ring.stage).arrive_and_expect(B::kBytes);
        const unsigned char* source = b + static_cast<int64_t>(part) * B::kBytes;
        device::copy_bulk(kStagesB + ring.stage * B::kBytes, source, B::kBytes, full(ring.stage));
      }
      const device::Shared<Unit> tile(kStagesA + ring.stage * A::kBytes, A::kUnits);
      for (int index = thread; index < A::kUnits; index += device::kWarpgroup) {
        tile.set(A::place(index) / static_cast<int>(sizeof(Unit)), A::unit(a, depth, part, index));
      }
      device::fence_async_proxy();
      RESNET_CUDA_SYNC_WARP();
      if (thread % device::kWarp == 0) {
        full(ring.stage).arrive();
      }
      ring.advance();
    }
  }

  RESNET_CUDA_BODY void consume(int thread) const {
    const int warpgroup = thread / device::kWarpgroup;
    device::Sums<kColumns> sums;
    device::Ring<kStages> ring(0);
    int last = -1;  // the stage before
    for (int part = 0; part < depth / A::kRow; ++part) {
      full(ring.stage).wait(ring.parity);
      // Each warpgroup multiplies 64 rows of a, or one column of 64.
      const int place = kStagesA + ring.stage * A::kBytes + warpgroup * device::kProductRows * device::kSwizzledRow;
      const device::Descriptor left = device::operand_at<kMajorA>(place, A::kColumnBytes);
      const device::Descriptor right = device::operand_at<kMajorB>(kStagesB + ring.stage * B::kBytes, B::kColumnBytes);
      device::begin_products(sums);
#pragma unroll
      for (int step = 0; step < device::kRowProducts; ++step) {
        device::multiply<T, kMajorA, kMajorB>(
            sums,
            left.advanced(step * device::kProductStep<kMajorA>),
            right.advanced(step * device::kProductStep<kMajorB>),
            part > 0 || step > 0);
      }
      device::commit_products();
      device::wait_products<1>();
      if (last >= 0 && thread % device::kWarp == 0) {
        empty(last).arrive();
      }
      last = ring.stage;
      ring.advance();
    }
    device::finish_products(sums);
    write(thread, sums);
  }

  // Through shared memory, 64 columns at a time, so that rows leave in packs of 16 bytes.
  RESNET_CUDA_BODY void write(int thread, const device::Sums<kColumns>& sums) const {
    constexpr int kAtOnce = 64;
    static_assert(2 * 64 * kAtOnce * static_cast<int>(sizeof(float)) <= kStages * A::kBytes);
    const int warpgroup = thread / device::kWarpgroup;
    const int in_group = thread % device::kWarpgroup;
    const device::Shared<float> tile(kStagesA + warpgroup * 64 * kAtOnce * 4, 64 * kAtOnce);
    device::sync_threads(1, kConsumers);  // both are done with the stages
#pragma unroll
    for (int first = 0; first < kColumns; first += kAtOnce) {
#pragma unroll
      for (int i = first / 2; i < (first + kAtOnce) / 2; ++i) {
        const int column = device::result_column(in_group, i) - first;
        tile.set(device::result_row(in_group, i) * kAtOnce + column, sums.get(i));
      }
      device::sync_threads(2 + warpgroup, device::kWarpgroup);
      for (int index = in_group; index < 64 * kAtOnce; index += device::kWarpgroup) {
        const int row = warpgroup * 64 + index / kAtOnce;
        result[row * kColumns + first + index % kAtOnce] = tile.get(index);
      }
      device::sync_threads(2 + warpgroup, device::kWarpgroup);
    }
  }
};

}  // namespace resnet_cuda
