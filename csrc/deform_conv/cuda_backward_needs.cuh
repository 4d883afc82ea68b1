// What the backward of a call needs beside its results.
#pragma once

#include "deform_conv/cuda_list_storage.cuh"
#include "deform_conv/cuda_weight_sums.cuh"
#include "deform_conv/cuda_workspace.h"

namespace resnet_cuda {

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
      WeightSums<T, Real>::bytes(weight, workspace),
      Lists::bytes(shape, 1, shape.out_height),
      Lists::row_bytes(shape)};
}

}  // namespace resnet_cuda
