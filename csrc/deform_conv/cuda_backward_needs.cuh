// What the backward of a call needs beside its results.
#pragma once

#include "deform_conv/cuda_bias_sums.cuh"
#include "deform_conv/cuda_list_storage.cuh"
#include "deform_conv/cuda_weight_sums.cuh"
#include "deform_conv/cuda_workspace.h"

namespace resnet_cuda {

// torch's allocator gives a cached block as a whole where less than 1 MiB of it would be left (c10/cuda,
// CUDACachingAllocator: kSmallSize): what the few large buffers of a call take more than they asked for, as a part of
// the workspace of 64 MiB.
inline int64_t allocator_slack(int64_t workspace) {
  return workspace / 32;
}

// `copies`: bytes per image of images in another layout. Whatever gradients are asked for, so that asking for fewer
// changes no bit.
template <typename T, typename Real>
WorkspaceNeeds backward_needs(const DeformConvShape& shape, int64_t copies, int64_t workspace = kWorkspaceBytes) {
  using Lists = ListStorage<Real>;
  const int64_t weight = shape.out_channels * shape.group_channels() * shape.taps();
  const int64_t totals = shape.height * shape.width * shape.channels * static_cast<int64_t>(sizeof(Real));
  return {
      weight * static_cast<int64_t>(sizeof(T)),
      copies,
      shape.taps() * shape.channels * static_cast<int64_t>(sizeof(T)),
      totals + Lists::fixed_bytes(shape),
      WeightSums<T, Real>::bytes(weight, workspace) + BiasSums<T, Real>::bytes(shape.out_channels, workspace) +
          allocator_slack(workspace),
      Lists::bytes(shape, 1, shape.out_height),
      Lists::row_bytes(shape)};
}

}  // namespace resnet_cuda
