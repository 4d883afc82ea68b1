// Whether a memory-bound pass should write its results past the caches (common/vec_two.h).
#pragma once

#include <cstdint>

namespace resnet_cuda {

// True where it is faster: the pass moves more than its threads' part of the caches, so that nobody will find the
// result there, and the result's memory has been given by the system. Pages that are still to be given are cleared
// first, by way of the caches; streaming into them costs up to a fifth more. `moved` counts the bytes that the whole
// pass reads and writes.
//
// The environment variable RESNET_CUDA_STREAMING (always, never) overrides it, for tests and comparisons; it is read
// once.
bool worth_streaming(int64_t moved, const void* result, int64_t result_bytes, int64_t threads);

}  // namespace resnet_cuda
