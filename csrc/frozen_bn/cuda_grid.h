// How many threads a pass over memory gets.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {
namespace frozen_bn_cuda {

constexpr int kThreads = 256;
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
