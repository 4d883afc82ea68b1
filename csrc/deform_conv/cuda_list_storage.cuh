// Memory of the lists of one chunk.
#pragma once

#include "common/tensors.h"
#include "deform_conv/cuda_input_lists.cuh"
#include "deform_conv/cuda_workspace.h"

namespace resnet_cuda {

template <typename Real>
class ListStorage {
 public:
  // Bytes per image: three numbers per list.
  static int64_t image_bytes(const DeformConvShape& shape) {
    return 3 * static_cast<int64_t>(sizeof(int)) * shape.offset_groups * shape.height * shape.width;
  }
  // Bytes per output pixel: four entries per tap, each twice, and the long lists that they could make.
  static int64_t pixel_bytes(const DeformConvShape& shape) {
    const int64_t entries = pixel_entries(shape);
    return 2 * static_cast<int64_t>(sizeof(int) + sizeof(Real)) * entries +
           static_cast<int64_t>(sizeof(int)) * ceil_div(entries, kLongList);
  }

  ListStorage(const Tensor& beside, const DeformConvShape& shape, const ChunkSizes& sizes)
      : lists_(sizes.images * shape.offset_groups * shape.height * shape.width),
        entries_(sizes.images * sizes.rows * shape.out_width * pixel_entries(shape)),
        // `left` is all zeros before the first chunk and after each.
        left_(zeros_beside(beside, {lists_}, ScalarType::Int)),
        integers_(empty_beside(beside, {2 * lists_ + 2 * entries_ + entries_ / kLongList + 2}, ScalarType::Int)),
        weights_(empty_beside(beside, {2 * entries_}, sizeof(Real) == 8 ? ScalarType::Double : ScalarType::Float)) {
  }

  InputLists<Real> of(const Chunk& chunk) const {
    auto* left = static_cast<int*>(left_.mutable_data_ptr());
    auto* begin = static_cast<int*>(integers_.mutable_data_ptr());
    int* length = begin + lists_;
    int* rows = length + lists_;
    int* ordered_rows = rows + entries_;
    int* entries_placed = ordered_rows + entries_;
    int* long_count = entries_placed + 1;
    int* long_lists = long_count + 1;
    auto* weights = static_cast<Real*>(weights_.mutable_data_ptr());
    const auto lists = static_cast<int>(chunk.shape.offset_groups * chunk.images * chunk.input_pixels());
    return {
        lists,
        left,
        begin,
        length,
        rows,
        ordered_rows,
        weights,
        weights + entries_,
        entries_placed,
        long_lists,
        long_count};
  }

 private:
  static int64_t pixel_entries(const DeformConvShape& shape) {
    return 4 * shape.taps() * shape.offset_groups;
  }

  int64_t lists_;
  int64_t entries_;
  Tensor left_;
  Tensor integers_;
  Tensor weights_;
};

}  // namespace resnet_cuda
