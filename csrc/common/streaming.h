// Whether a memory-bound pass should write its results with streaming (non-temporal) stores (common/vec_pair.h).
#pragma once

#include <cstdint>

namespace resnet_cuda {

// True where it is faster: the pass moves more than its threads' share of the last-level cache, so that no later reader
// would find the result there, and the result's pages are resident. (At its first touch the system clears a page
// through the caches; streaming into such pages costs up to a fifth more.) `moved` counts the bytes that the whole pass
// reads and writes. The result must begin at a cache line.
//
// The environment variable RESNET_CUDA_STREAMING (always, never) overrides size and pages, for tests and comparisons;
// it is read once.
bool worth_streaming(int64_t moved, const void* result, int64_t result_bytes, int64_t threads);

}  // namespace resnet_cuda
