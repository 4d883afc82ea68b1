// The CSR transpose of the sampling matrix: for every input pixel the rows of the columns (im2col) that read it, with
// their weights. col2im is then a gather: each pixel sums its list, always in the same order and without floating-point
// atomics. Built by TapCorners and InvertTaps for as many images at once as there is room for.
#pragma once

#include "deform_conv/cuda_chunk.cuh"

namespace resnet_cuda {

// A non-zero of the sampling matrix: a row of the columns and the weight with which it reads the list's pixel.
template <typename Real>
struct alignas(2 * sizeof(Real)) ListEntry {
  Real weight;
  int row;  // counted within the image: pixel * taps + tap
};

struct alignas(8) ListRange {
  int begin;  // first entry
  int length;
};

// Lists are numbered [offset group][image][input pixel in strip order].
template <typename Real>
struct InputLists {
  int images;
  ListRange* ranges;         // [lists]
  ListEntry<Real>* entries;  // each list's by (tap, pixel in strip order)
  int* entry_count;          // [1] entries given to lists so far
  int* long_lists;           // the lists of more than kLongList entries, in any order
  int* long_count;           // [1]
};

// An ordinary list has about 4 * taps entries. Lists longer than kLongList are summed by a whole block.
#if !defined(RESNET_CUDA_LONG_LIST)
#define RESNET_CUDA_LONG_LIST 512
#endif
constexpr int kLongList = RESNET_CUDA_LONG_LIST;
static_assert(kLongList > 0, "ListStorage has room for one long list per kLongList entries");

// So many entries behind a list's last may be read ahead, so there is room for them.
constexpr int kListStep = 4;

// The one place that tells long lists from others: who notes them and who sums them ask here.
RESNET_CUDA_HOST_DEVICE bool is_long_list(int length) {
  return length > kLongList;
}

}  // namespace resnet_cuda
