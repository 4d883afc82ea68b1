// The launches of the fused columns' gradient: the weight is packed once per call, the output's gradient once per
// chunk.
#pragma once

#include <algorithm>

#include "common/launch.cuh"
#include "common/tensors.h"
#include "deform_conv/cuda_call.cuh"
#include "deform_conv_fused/cuda_column_gradient.cuh"
#include "deform_conv_fused/cuda_column_gradient_epilogue.cuh"
#include "deform_conv_fused/cuda_fused.h"

namespace resnet_cuda {

// Slices of 64 output channels of a weight group.
inline int gradient_slices(const DeformConvShape& shape) {
  return static_cast<int>(ceil_div(shape.group_out_channels(), PackedOutputGradient::kChannels));
}

// The variants of FusedColumnGradient: <columns, slices at most>. The output's gradient of more does not fit a
// multiprocessor's shared memory.
constexpr int kFewSlices = 4;
constexpr int kMostSlices = 8;

inline int column_gradient_columns(const DeformConvShape& shape) {
  const bool narrow = std::gcd(shape.group_channels(), shape.offset_group_channels()) <= 128;
  return narrow && gradient_slices(shape) <= kFewSlices ? 128 : 256;
}

inline int64_t transposed_weight_bytes(const DeformConvShape& shape) {
  const ChannelTiles tiles(shape, column_gradient_columns(shape));
  return shape.taps() * tiles.tiles * gradient_slices(shape) * tiles.columns * device::kSwizzledRow;
}

// What PackedOutputGradient adds to a pixel; without the pixels that it fills up.
inline int64_t gradient_part_bytes(const DeformConvShape& shape) {
  return shape.groups * gradient_slices(shape) * device::kSwizzledRow;
}

// Rows of an image count as an image of so many rows.
inline DeformConvShape gradient_shape(const Chunk& chunk) {
  DeformConvShape shape = chunk.shape;
  shape.batch = chunk.images;
  shape.out_height = chunk.rows;
  return shape;
}

template <typename T>
class ColumnGradientCalls {
 public:
  ColumnGradientCalls(const Launcher& launcher, const DeformConvArguments& arguments, int64_t most_pixels)
      : launcher_(launcher),
        positions_(positions_of(arguments)),
        tiles_(arguments.shape, column_gradient_columns(arguments.shape)),
        slices_(gradient_slices(arguments.shape)),
        beside_(arguments.weight),
        weight_(bytes(transposed_weight_bytes(arguments.shape))),
        // Whole tiles of pixels: the rows past the chunk are zeros.
        grad_(bytes(
            ceil_div(most_pixels, PackedOutputGradient::kPixelMultiple) * PackedOutputGradient::kPixelMultiple *
            gradient_part_bytes(arguments.shape))) {
    pack_weight(arguments);
  }

  void operator()(const ColumnGradientChunk& given) const {
    const DeformConvShape shape = gradient_shape(given.chunk);
    const Tensor rows = torch::stable::from_blob(
        const_cast<void*>(given.rows),
        {shape.batch, shape.out_channels, shape.out_height, shape.out_width},
        {shape.out_pixels() * shape.out_channels, 1, shape.out_width * shape.out_channels, shape.out_channels},
        beside_.device(),
        beside_.scalar_type());
    pack_output_gradient<T>(launcher_, rows, shape, 0, shape.batch, data(grad_));
    if (slices_ > kFewSlices) {
      launch<256, kMostSlices>(given);
    } else if (tiles_.columns == 256) {
      launch<256, kFewSlices>(given);
    } else {
      launch<128, kFewSlices>(given);
    }
  }

 private:
  Tensor bytes(int64_t count) const {
    return empty_beside(beside_, {count / static_cast<int64_t>(sizeof(T))}, beside_.scalar_type());
  }
  static T* data(const Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
  }

  void pack_weight(const DeformConvArguments& arguments) const {
    const DeformConvShape& shape = arguments.shape;
    const PixelStrides strides = pixel_strides(arguments.weight, is_dense_channels_last(arguments.weight));
    launcher_.run(
        transposed_weight_bytes(shape) / kPackBytes,
        PackTransposedWeight<T>{
            static_cast<const T*>(arguments.weight.const_data_ptr()),
            data(weight_),
            tiles_,
            strides.image,
            strides.channel,
            strides.pixel,
            static_cast<int>(shape.group_channels()),
            static_cast<int>(shape.group_out_channels()),
            FastDivision(tiles_.columns * device::kSwizzledRow / kPackBytes),
            FastDivision(slices_),
            FastDivision(tiles_.tiles)});
  }

  template <int kColumns, int kSlices>
  void launch(const ColumnGradientChunk& given) const {
    using Body = FusedColumnGradient<T, kColumns, kSlices>;
    const Chunk& chunk = given.chunk;
    const auto taps = static_cast<int>(chunk.shape.taps());
    const int64_t pixel_tiles = ceil_div(chunk.pixels(), Body::kPixels);
    const int block_taps = taps_in_waves(pixel_tiles, taps, launcher_.multiprocessors());
    const auto tap_parts = static_cast<int>(ceil_div(taps, block_taps));
    const ColumnGradientCall call{
        chunk,
        positions_,
        given.grads,
        tiles_,
        StripOrder(chunk.rows, static_cast<int>(chunk.shape.out_width)),
        FastDivision32(chunk.rows * static_cast<int>(chunk.shape.out_width)),
        FastDivision32(static_cast<int>(chunk.shape.kernel_w)),
        FastDivision32(tap_parts),
        block_taps,
        slices_};
    launcher_.launch(
        pixel_tiles * tap_parts,
        Body{
            call,
            data(grad_),
            data(weight_),
            static_cast<const T*>(given.input),
            // Any memory where nothing is stored: nothing may be added to a null pointer.
            given.columns != nullptr ? static_cast<T*>(given.columns) : data(grad_),
            given.columns != nullptr});
  }

  const Launcher& launcher_;
  Positions positions_;
  ChannelTiles tiles_;
  int slices_;
  Tensor beside_;  // whose device and dtype the tensors have
  Tensor weight_;  // see PackTransposedWeight
  Tensor grad_;    // see PackedOutputGradient
};

}  // namespace resnet_cuda
