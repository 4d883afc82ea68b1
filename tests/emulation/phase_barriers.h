// The barriers in shared memory (mbarrier) of a block: their phases, who waits for which, and what is missing.
#pragma once

#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "clocks.h"
#include "fault.h"

namespace resnet_cuda {
namespace emulation {

class PhaseBarriers {
 public:
  static constexpr int kMost = 32;  // of a block

  explicit PhaseBarriers(Clocks& clocks) : clocks_(clocks) {
  }

  void begin_block() {
    barriers_.clear();
  }

  void init(int place, int arrivals, int thread, uint32_t epoch, const Line& line) {
    if (place % 8 != 0) {
      fail("makes a barrier at byte ", place, ", which is no multiple of 8, in ", line);
    }
    if (arrivals < 1) {
      fail("makes a barrier for ", arrivals, " arrivals in ", line);
    }
    for (const Barrier& barrier : barriers_) {
      if (barrier.place == place) {
        fail("makes a barrier at byte ", place, " in ", line, " again");
      }
    }
    if (barriers_.size() == kMost) {
      fail("makes more than ", kMost, " barriers in ", line);
    }
    Barrier barrier;
    barrier.place = place;
    barrier.arrivals = barrier.missing = arrivals;
    barrier.maker = thread;
    barrier.made_in = epoch;
    barrier.gathered = barrier.known = clocks_.empty();
    barrier.last_waited.assign(clocks_.threads(), kNever);
    barriers_.push_back(barrier);
  }

  void publish(int thread) {
    for (Barrier& barrier : barriers_) {
      barrier.published |= barrier.maker == thread;
    }
  }

  // The number of the barrier at `place`, which `thread` may use in `epoch`.
  int find(int place, int thread, uint32_t epoch, const Line& line) const {
    for (std::size_t i = 0; i < barriers_.size(); ++i) {
      const Barrier& barrier = barriers_[i];
      if (barrier.place != place) {
        continue;
      }
      if (!barrier.published || (barrier.made_in == epoch && barrier.maker != thread)) {
        fail(
            "uses the barrier at byte ",
            place,
            " in ",
            line,
            ", which thread ",
            barrier.maker,
            " has made without publish_barriers() or a block barrier since");
      }
      return static_cast<int>(i);
    }
    fail("uses a barrier at byte ", place, " in ", line, ", where none was made");
  }

  // `thread` arrives and announces `bytes`.
  void arrive(int number, int thread, int bytes, const Line& line) {
    Barrier& barrier = barriers_[number];
    if (barrier.missing == 0) {
      fail(
          "arrives at the barrier at byte ",
          barrier.place,
          " in ",
          line,
          ", where all ",
          barrier.arrivals,
          " of its phase ",
          barrier.phases,
          " have arrived");
    }
    --barrier.missing;
    barrier.bytes += bytes;
    Clocks::join(barrier.gathered, clocks_.of(thread));
    clocks_.tick(thread);
    end_phase_if_complete(barrier);
  }

  // A copy has brought `bytes`. Gives its time; who copied is number clocks.threads() + `number`.
  uint32_t complete_copy(int number, int bytes, const Line& line) {
    Barrier& barrier = barriers_[number];
    barrier.gathered[clocks_.threads() + number] = ++barrier.copies;
    if (barrier.bytes < bytes) {
      fail(
          "copies ",
          bytes,
          " bytes in ",
          line,
          " for the barrier at byte ",
          barrier.place,
          ", whose phase ",
          barrier.phases,
          " expects ",
          barrier.bytes);
    }
    barrier.bytes -= bytes;
    const uint32_t time = barrier.copies;
    end_phase_if_complete(barrier);
    return time;
  }

  // The phase that `thread` asks for by its parity: the one after the last that it has waited for.
  int64_t asked_phase(int number, int thread, int parity, const Line& line) const {
    const Barrier& barrier = barriers_[number];
    const int64_t last = barrier.last_waited[thread];
    if (parity != 0 && parity != 1) {
      fail("waits for parity ", parity, " in ", line);
    }
    if (last == kNever) {
      return -parity;
    }
    if (((last + 1) & 1) != parity) {
      fail(
          "waits for parity ",
          parity,
          " of the barrier at byte ",
          barrier.place,
          " in ",
          line,
          " again: it has waited for phase ",
          last,
          " already");
    }
    return last + 1;
  }

  bool ended(int number, int64_t phase) const {
    return barriers_[number].phases > phase;
  }

  void pass(int number, int thread, int64_t phase, const Line& line) {
    Barrier& barrier = barriers_[number];
    if (barrier.phases > phase + 1) {
      fail(
          "waits for phase ",
          phase,
          " of the barrier at byte ",
          barrier.place,
          " in ",
          line,
          ", which is in phase ",
          barrier.phases,
          ": the parity no longer says which");
    }
    barrier.last_waited[thread] = phase;
    clocks_.learn(thread, barrier.known);
  }

  void add_waiter(int number, int thread) {
    barriers_[number].waiters.push_back(thread);
  }

  // Who may run again since the last call.
  std::vector<int> take_woken() {
    std::vector<int> woken;
    woken.swap(woken_);
    return woken;
  }

  std::string described(int number) const {
    const Barrier& barrier = barriers_[number];
    std::ostringstream text;
    text << "barrier at byte " << barrier.place << ", whose phase " << barrier.phases << " lacks " << barrier.missing
         << " of " << barrier.arrivals << " arrivals";
    if (barrier.bytes > 0) {
      text << " and " << barrier.bytes << " bytes";
    }
    return text.str();
  }

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::min();

  struct Barrier {
    int place = 0;
    int arrivals = 0;
    int missing = 0;  // of the phase that goes on
    int64_t bytes = 0;
    int64_t phases = 0;  // that have ended
    uint32_t copies = 0;
    int maker = 0;
    uint32_t made_in = 0;
    bool published = false;
    Clocks::Clock gathered;            // by those who arrive in this phase
    Clocks::Clock known;               // to whoever has waited for the last phase
    std::vector<int64_t> last_waited;  // [threads]
    std::vector<int> waiters;
  };

  void end_phase_if_complete(Barrier& barrier) {
    if (barrier.missing > 0 || barrier.bytes > 0) {
      return;
    }
    ++barrier.phases;
    barrier.missing = barrier.arrivals;
    Clocks::join(barrier.known, barrier.gathered);
    woken_.insert(woken_.end(), barrier.waiters.begin(), barrier.waiters.end());
    barrier.waiters.clear();
  }

  Clocks& clocks_;
  std::vector<Barrier> barriers_;
  std::vector<int> woken_;
};

}  // namespace emulation
}  // namespace resnet_cuda
