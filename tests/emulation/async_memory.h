// What wgmma and bulk copies do to shared memory: which of its 16 bytes they are about to write or still read, which
// they have read, and what threads have written but not yet passed on to them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "clocks.h"
#include "fault.h"

namespace resnet_cuda {
namespace emulation {

class AsyncMemory {
 public:
  AsyncMemory(int bytes, int threads, const Clocks& clocks)
      : clocks_(clocks),
        words_(bytes / 4),
        units_((bytes + 15) / 16),
        warps_(threads / 32),
        fences_(threads),
        last_fence_(threads) {
  }

  void begin_block() {
    barrier_word_.assign(words_, 0);
    unit_.assign(units_, Unit{});
    read_.assign(static_cast<std::size_t>(units_) * warps_, Read{});
    for (auto& times : fences_) {
      times.clear();
    }
    for (auto& known : last_fence_) {
      known.clear();
    }
  }

  void reserve_barrier(int begin) {
    barrier_word_[begin / 4] = barrier_word_[begin / 4 + 1] = 1;
  }

  // Before a thread reads or writes, or copies to, `bytes` bytes.
  void check(int begin, int bytes, int thread, const Line& line, const char* what, bool writes) const {
    for (int word = begin / 4; word < (begin + bytes) / 4; ++word) {
      if (barrier_word_[word]) {
        fail(what, " word ", word, " of shared memory in ", line, ", which belongs to a barrier");
      }
    }
    for (int unit = begin / 16; unit <= (begin + bytes - 1) / 16; ++unit) {
      check_copy(unit, line, what);
      if (!writes) {
        continue;
      }
      if (unit_[unit].readers > 0) {
        const Line& reader = unit_[unit].reader;
        fail(what, " bytes from ", unit * 16, " on in ", line, ", which wgmma in ", reader, " may still read");
      }
      for (int warp = 0; warp < warps_; ++warp) {
        const Read& read = read_[static_cast<std::size_t>(unit) * warps_ + warp];
        if (read.time > 0 && !clocks_.saw(thread, warp * 32, read.time)) {
          fail(
              what,
              " bytes from ",
              unit * 16,
              " on in ",
              line,
              " without having waited until warp ",
              warp,
              " was done with wgmma in ",
              read.line);
        }
      }
    }
  }

  // Before wgmma reads 16 bytes.
  void check_operand(int unit, const Line& line) const {
    for (int word = unit * 4; word < std::min(unit * 4 + 4, words_); ++word) {
      if (barrier_word_[word]) {
        fail("wgmma in ", line, " reads word ", word, " of shared memory, which belongs to a barrier");
      }
    }
    check_copy(unit, line, "reads, by wgmma,");
  }

  void begin_copy(int begin, int bytes, const Line& line) {
    for (int unit = begin / 16; unit < (begin + bytes) / 16; ++unit) {
      unit_[unit].copying = true;
      unit_[unit].copy = line;
    }
  }
  void end_copy(int begin, int bytes) {
    for (int unit = begin / 16; unit < (begin + bytes) / 16; ++unit) {
      unit_[unit].copying = false;
    }
  }

  // By the four warps of a warpgroup, from now on; and no longer by one of them.
  void begin_reading(int unit, const Line& line) {
    unit_[unit].readers += 4;
    unit_[unit].reader = line;
  }
  void end_reading(int unit, int warp, const Line& line) {
    --unit_[unit].readers;
    read_[static_cast<std::size_t>(unit) * warps_ + warp] = {clocks_.now(warp * 32), line};
  }

  void fence(int thread) {
    fences_[thread].push_back(clocks_.now(thread));
    last_fence_[thread] = clocks_.of(thread);
  }
  // Whether what `writer` wrote at `time` was passed on: by a fence of the reader that followed, or by one of the
  // writer that the reader knows of. (Both are on the path from the write to the read: PTX ISA, "Causality order";
  // Lustig et al., "Mixed-proxy extensions for the NVIDIA PTX memory consistency model", 2022.)
  bool passed_on(int writer, uint32_t time, int reader) const {
    if (!last_fence_[reader].empty() && last_fence_[reader][writer] >= time) {
      return true;
    }
    const auto& times = fences_[writer];
    const auto next = std::lower_bound(times.begin(), times.end(), time);
    return next != times.end() && clocks_.saw(reader, writer, *next);
  }

 private:
  struct Unit {
    bool copying = false;
    int readers = 0;
    Line copy;
    Line reader;
  };
  struct Read {
    uint32_t time = 0;
    Line line;
  };

  void check_copy(int unit, const Line& line, const char* what) const {
    if (unit_[unit].copying) {
      fail(what, " bytes from ", unit * 16, " on in ", line, ", while the copy of ", unit_[unit].copy, " is under way");
    }
  }

  const Clocks& clocks_;
  int words_;
  int units_;
  int warps_;
  std::vector<uint8_t> barrier_word_;          // [words]
  std::vector<Unit> unit_;                     // [units of 16 bytes]
  std::vector<Read> read_;                     // [units, warps]
  std::vector<std::vector<uint32_t>> fences_;  // [threads], times in ascending order
  std::vector<Clocks::Clock> last_fence_;      // [threads], what the thread knew at its last fence; empty before
};

}  // namespace emulation
}  // namespace resnet_cuda
