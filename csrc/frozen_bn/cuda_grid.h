// The number of threads of a pass over memory.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {
namespace frozen_bn_cuda {

constexpr int kThreads = 256;
// Packs that a thread loads before it uses the first. By Little's law an H200 needs about 20 KB in flight on each
// multiprocessor: 3 TB/s of reads / 132 multiprocessors x a latency of 0.9 us, which is assumed. 1024 threads (64
// registers each) with two loads of 16 bytes have 32 KiB in flight, with a residual 64 KiB.
constexpr int kInFlight = 2;
// At up to 64 registers four blocks of 256 threads run at once on a multiprocessor; two waves balance the load.
constexpr int kBlocksPerMultiprocessor = 8;
static_assert(kInFlight > 0 && kBlocksPerMultiprocessor > 0, "a thread takes packs, a multiprocessor blocks");

// One pack per thread while that does not fill the device, several beyond. At least one block: the tail, elements after
// the last whole pack, needs it.
inline int64_t blocks_for(int64_t packs, int multiprocessors) {
  const int64_t wanted = ceil_div(packs, kThreads);
  const int64_t most = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
  return wanted < 1 ? 1 : smaller(wanted, most);
}

}  // namespace frozen_bn_cuda
}  // namespace resnet_cuda
