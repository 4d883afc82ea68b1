// Whether a memory-bound pass should write its results with streaming (non-temporal) stores (common/vec_pair.h).
#pragma once

#include <cstdint>

namespace resnet_cuda {

// Whether non-temporal stores are faster: the pass moves more bytes than its threads' share of the last-level cache, so
// that no later reader would find the result there, and the result's pages are resident. (The system clears a page
// through the caches at its first touch; non-temporal stores into such pages are up to a fifth slower.) `moved`: the
// bytes that the whole pass reads and writes. The result must begin at a cache line.
//
// The environment variable RESNET_CUDA_STREAMING (always, never) overrides both criteria, for tests and comparisons. It
// is read once.
bool worth_streaming(int64_t moved, const void* result, int64_t result_bytes, int64_t threads);

}  // namespace resnet_cuda
