// The second half of csrc/common/warpgroup.cuh on the CPU, for tests.
//
// Reported besides the errors that device_emulation.h lists:
// - an access to bytes that a pending bulk copy writes, or that it has written and the thread has not waited for;
// - wgmma or a bulk copy on bytes that a thread has written without a fence afterwards, or with no barrier after it;
// - a write to bytes that a wgmma may still read: before all four warps have waited for it, and the writer for them;
// - sums that are read before a wait, or multiplied into without begin_products after one;
// - a phase that is waited for twice or out of order, and an arrival too many;
// - a wrong descriptor: its bit fields are decoded;
// - float32 operands that are not rounded to TF32;
// - more registers than a thread block has;
// - a deadlock, with what each barrier waits for.
// The seed decides when a bulk copy ends. Not emulated: other swizzles, clusters, timing.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "grid.h"
#include "wgmma_emulation.h"

namespace resnet_cuda {
namespace device {

class PhaseBarrier {
 public:
  explicit PhaseBarrier(int place) : place_(place) {
  }
  void init(int arrivals, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    emulation::Grid::here().make_barrier(place_, arrivals, {file, line});
  }
  void arrive(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    emulation::Grid::here().arrive_at(place_, 0, {file, line});
  }
  void arrive_and_expect(int bytes, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    emulation::Grid::here().arrive_at(place_, bytes, {file, line});
  }
  void wait(int parity, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    emulation::Grid::here().wait_at(place_, parity, {file, line});
  }
  int place() const {
    return place_;
  }

 private:
  int place_;
};

inline void publish_barriers() {
  emulation::Grid::here().publish_barriers();
}

inline void fence_async_proxy() {
  emulation::Grid::here().fence_async_proxy();
}

inline void copy_bulk(
    int place,
    const void* source,
    int bytes,
    const PhaseBarrier& barrier,
    const char* file = __builtin_FILE(),
    int line = __builtin_LINE()) {
  emulation::Grid::here().copy(place, source, bytes, barrier.place(), {file, line});
}

inline void sync_threads(int number, int threads, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Grid::here().sync_threads(number, threads, {file, line});
}

template <int kRegisters>
void lower_registers(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Grid::here().set_registers(kRegisters, false, {file, line});
}
template <int kRegisters>
void raise_registers(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Grid::here().set_registers(kRegisters, true, {file, line});
}

template <Major kMajor>
Descriptor operand_at(int place, int column_bytes = 0) {
  const uint32_t address = emulation::kSharedAddress + static_cast<uint32_t>(place);
  return {warpgroup_detail::descriptor_bits<kMajor>(address, column_bytes)};
}

template <int kColumns>
class Sums {
 public:
  static constexpr int kCount = kColumns / 2;

  float get(int index, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    const emulation::Line at{file, line};
    if (index < 0 || index >= kCount) {
      emulation::fail("index ", index, " of ", kCount, " sums in ", at);
    }
    if (product_ == 0) {
      emulation::fail("reads sums in ", at, " that no product has set");
    }
    if (product_ > emulation::Grid::here().products_done()) {
      emulation::fail("reads sums in ", at, " of a product that was not waited for");
    }
    begun_ = false;
    return value_[index];
  }

  void add(int index, float more, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    value_[index] = get(index, file, line) + more;
  }

  void begin() {
    begun_ = true;
  }

  // What wgmma works on.
  float* multiplied(bool accumulate, const emulation::Line& at) {
    if (!begun_) {
      emulation::fail("multiplies in ", at, " without begin_products() since the sums were last read");
    }
    if (accumulate && product_ == 0) {
      emulation::fail("adds in ", at, " to sums that no product has set");
    }
    return value_;
  }
  void set_product(int64_t number) {
    product_ = number;
  }

 private:
  float value_[kCount];
  int64_t product_ = 0;  // the last one, as the warp counts them
  mutable bool begun_ = false;
};

template <int kColumns>
void begin_products(Sums<kColumns>& sums, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Grid::here().fence_products({file, line});
  sums.begin();
}

template <typename T, Major kMajorA, Major kMajorB, int kColumns>
void multiply(
    Sums<kColumns>& sums,
    const Descriptor& a,
    const Descriptor& b,
    bool accumulate,
    const char* file = __builtin_FILE(),
    int line = __builtin_LINE()) {
  static_assert(kColumns == 128 || kColumns == 256);
  static_assert(sizeof(T) == 2 || (kMajorA == Major::kK && kMajorB == Major::kK));
  constexpr int kDepth = emulation::kProductDepth<T>;
  using Multiply = emulation::Grid::Multiply;
  emulation::Grid& grid = emulation::Grid::here();
  const emulation::Line at{file, line};
  const auto product = [&](int first, const Multiply(&of_thread)[kWarpgroup]) {
    std::vector<int> units;
    const emulation::Operand left(a.bits, kMajorA == Major::kMN, "a", at);
    const emulation::Operand right(b.bits, kMajorB == Major::kMN, "b", at);
    const auto a_elements = emulation::read_operand<T>(grid.shared(), left, kProductRows, first, at, units);
    const auto b_elements = emulation::read_operand<T>(grid.shared(), right, kColumns, first, at, units);
    for (int row = 0; row < kProductRows; ++row) {
      for (int column = 0; column < kColumns; ++column) {
        const emulation::Holder holder = emulation::holder_of(row, column);
        float& sum = of_thread[holder.thread].sums[holder.index];
        const float* left_row = a_elements.data() + row * kDepth;
        const float* right_row = b_elements.data() + column * kDepth;
        sum = emulation::dot(left_row, right_row, kDepth, accumulate ? sum : 0.0f);
      }
    }
    return units;
  };
  grid.multiply({a.bits, b.bits, accumulate, sums.multiplied(accumulate, at)}, at, product);
  sums.set_product(grid.products());
}

inline float rounded_to_tf32(float value) {
  return emulation::rounded_to_tf32(value);
}

inline void commit_products(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Grid::here().commit_products({file, line});
}

template <int kPending>
void wait_products(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Grid::here().wait_products(kPending, {file, line});
}

template <int kColumns>
void finish_products(Sums<kColumns>&, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Grid::here().wait_products(0, {file, line});
}

}  // namespace device
}  // namespace resnet_cuda
