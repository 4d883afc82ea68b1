// The second kernel of the fused gradient for the weight: adds what the thread blocks have summed of each tile.
#pragma once

#include "common/pack.cuh"
#include "deform_conv_fused/cuda_weight_gradient_call.cuh"

namespace resnet_cuda {

// Index: four sums of a tile, which are added over the blocks in their order, of each over the depth parts, and to
// those of the chunks before.
template <typename To, int kRows, int kDepthParts>
struct SumTiles {
  using Layout = TileSums<kRows, kDepthParts>;

  WeightGradientCall call;
  const float* sums;    // see FusedWeightGradient
  const float* before;  // of the chunks before, with the target's strides; or null
  To* target;           // [O, C/groups, taps]
  int64_t out_stride, channel_stride, tap_stride;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    const auto number = static_cast<int>(index / Layout::kTileQuads);
    const auto in_tile = static_cast<int>(index % Layout::kTileQuads);
    const WeightTile tile = call.tile<kRows>(number);
    const int thread = in_tile % device::kWarpgroup;
    const int first_element = in_tile / device::kWarpgroup % Layout::kQuads * 4;
    const int row_block = in_tile / (device::kWarpgroup * Layout::kQuads);
    const int column = device::result_column(thread, first_element);
    const int unit = tile.first_unit + column / kSliceChannels;
    const auto group_outputs = static_cast<int>(call.shape.group_out_channels());
    const int first_output = tile.first_part * PackedOutputGradient::kChannels + row_block * device::kProductRows +
                             device::result_row(thread, first_element);
    if (unit >= call.units || first_output >= group_outputs) {
      return;
    }
    float sum[4] = {0, 0, 0, 0};
    const int64_t first = call.stream.first_block(number);
    const int64_t last = call.stream.last_block(number);
#pragma unroll 4
    for (int64_t block = first; block <= last; ++block) {
      const float* place = sums + StreamK::place(block, number) * Layout::kElements + in_tile * 4;
#pragma unroll
      for (int part = 0; part < kDepthParts; ++part) {
        const Pack<float, 4> pack = load_constant_pack<4>(place + part * Layout::kTileQuads * 4);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[i] += pack.element[i];
        }
      }
    }
    const WeightUnit at = call.unit(unit);
    const int64_t channel = at.slice * kSliceChannels + column % kSliceChannels;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int output = first_output + device::result_row(0, i);
      if (output < group_outputs) {
        const int64_t place = (static_cast<int64_t>(tile.group) * group_outputs + output) * out_stride +
                              (channel + device::result_column(0, i)) * channel_stride + at.tap * tap_stride;
        target[place] = static_cast<To>(before == nullptr ? sum[i] : before[place] + sum[i]);
      }
    }
  }
};

}  // namespace resnet_cuda
