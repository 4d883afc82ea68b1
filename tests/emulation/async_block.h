// What runs beside a block's threads, and the barriers that tell of it: bulk copies, which end at a time that the seed
// chooses, and the products of warpgroups, which hold their operands until they are waited for.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "clocks.h"
#include "fault.h"
#include "phase_barriers.h"
#include "seed.h"
#include "shared_memory.h"

namespace resnet_cuda {
namespace emulation {

class AsyncBlock {
 public:
  AsyncBlock(Clocks& clocks, SharedMemory& shared, int threads, int registers)
      : barriers(clocks), clocks_(clocks), shared_(shared), threads_(threads), registers_(registers) {
  }

  void begin_block() {
    clocks_.begin_block();
    barriers.begin_block();
    copies_.clear();
    warps_.assign(threads_ / kWarp, Warp{});
    for (Warp& warp : warps_) {
      warp.registers = registers_;
    }
    spare_registers_ = 0;
  }

  void end_block() const {
    if (!copies_.empty()) {
      fail("the block has ended while the copy of ", copies_.front().line, " is under way");
    }
    for (const Warp& warp : warps_) {
      if (!warp.pending.empty()) {
        fail("the block has ended without having waited for wgmma in ", warp.pending.front().line);
      }
    }
  }

  // --- bulk copies

  void copy(int place, const void* source, int bytes, int barrier, const SharedMemory::Access& access) {
    if (place % 16 != 0 || reinterpret_cast<uintptr_t>(source) % 16 != 0 || bytes <= 0 || bytes % 16 != 0) {
      fail(
          "copies ",
          bytes,
          " bytes from ",
          source,
          " to byte ",
          place,
          " in ",
          access.line,
          "; multiples of 16 are meant");
    }
    shared_.begin_copy(place, bytes, access);
    copies_.push_back({place, source, bytes, barrier, access.line});
  }

  bool copying() const {
    return !copies_.empty();
  }

  // Ends one of the copies.
  void end_copy(Random& random) {
    const std::size_t chosen = random.below(copies_.size());
    const Copy copy = copies_[chosen];
    copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(chosen));
    const uint32_t time = barriers.complete_copy(copy.barrier, copy.bytes, copy.line);
    shared_.end_copy(copy.place, copy.source, copy.bytes, threads_ + copy.barrier, time, copy.line);
  }

  // --- products; of a warp

  // `units` are the 16 bytes that the product of the warpgroup, of which it is the first warp, reads.
  void add_product(int first_warp, const std::vector<int>& units, const Line& line) {
    for (const int unit : units) {
      shared_.async().begin_reading(unit, line);
    }
    for (int warp = first_warp; warp < first_warp + 4; ++warp) {
      warps_[warp].pending.push_back({units, line, 0});
      ++warps_[warp].products;
    }
  }

  void commit(int warp) {
    Warp& its = warps_[warp];
    ++its.groups;
    for (Product& product : its.pending) {
      product.group = product.group == 0 ? its.groups : product.group;
    }
  }

  // Waits for all groups but the last `pending` ones.
  void wait(int warp, int pending) {
    Warp& its = warps_[warp];
    while (!its.pending.empty() && its.pending.front().group != 0 &&
           its.pending.front().group + pending <= its.groups) {
      for (const int unit : its.pending.front().units) {
        shared_.async().end_reading(unit, warp, its.pending.front().line);
      }
      its.pending.pop_front();
      ++its.done;
    }
    clocks_.tick(warp * kWarp);
  }

  // Products so far, and those that were waited for.
  int64_t products(int warp) const {
    return warps_[warp].products;
  }
  int64_t done(int warp) const {
    return warps_[warp].done;
  }

  // --- registers

  // Gives the warp `count` per thread; false where others must hand back some first.
  bool set_registers(int warp, int count, bool raise, const Line& line) {
    int& its = warps_[warp].registers;
    if (count % 8 != 0 || count < 24 || count > 256 || (raise ? count < its : count > its)) {
      fail(raise ? "raises " : "lowers ", its, " registers to ", count, " in ", line);
    }
    if (count - its > spare_registers_) {
      return false;
    }
    spare_registers_ -= count - its;
    its = count;
    return true;
  }

  PhaseBarriers barriers;

 private:
  struct Copy {
    int place;
    const void* source;
    int bytes;
    int barrier;
    Line line;
  };
  struct Product {
    std::vector<int> units;
    Line line;
    int64_t group;  // 0: not committed
  };
  struct Warp {
    std::deque<Product> pending;
    int64_t groups = 0;
    int64_t products = 0;
    int64_t done = 0;
    int registers = 0;
  };

  Clocks& clocks_;
  SharedMemory& shared_;
  int threads_;
  int registers_;  // of a thread at first
  std::deque<Copy> copies_;
  std::vector<Warp> warps_;
  int spare_registers_ = 0;  // per thread, of one warp
};

}  // namespace emulation
}  // namespace resnet_cuda
