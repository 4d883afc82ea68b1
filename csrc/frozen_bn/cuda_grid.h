// How many threads a pass over memory gets.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {
namespace frozen_bn_cuda {

constexpr int kThreads = 256;
// Packs that a thread reads before it uses the first. 1024 threads at once on a multiprocessor (64 registers each; more
// threads where there is no residual) have 32 KB on their way at one load of 16 bytes per pack, 64 KB at two. An H200
// asks about 20 KB: reads of 3 TB/s, shared by 132 multiprocessors, times a latency of 0.9 us, which is assumed.
constexpr int kInFlight = 2;
// At up to 64 registers four blocks of 256 threads run at once on a multiprocessor: two rounds of them, so that one
// that is done early takes from the second.
constexpr int kBlocksPerMultiprocessor = 8;

// One pack per thread while that does not fill the device, more of them per thread beyond. At least one block: elements
// that do not make up a pack need it.
inline int64_t blocks_for(int64_t packs, int multiprocessors) {
  const int64_t wanted = ceil_div(packs, kThreads);
  const int64_t most = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
  return wanted < 1 ? 1 : smaller(wanted, most);
}

}  // namespace frozen_bn_cuda
}  // namespace resnet_cuda
