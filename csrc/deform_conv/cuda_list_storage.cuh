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
    return 2 * static_cast<int64_t>(sizeof(ListEntry<Real>)) * entries +
           static_cast<int64_t>(sizeof(int)) * ceil_div(entries, kLongList);
  }

  ListStorage(const Tensor& beside, const DeformConvShape& shape, const ChunkSizes& sizes)
      : lists_(sizes.images * shape.offset_groups * shape.height * shape.width),
        entries_(sizes.images * sizes.rows * shape.out_width * pixel_entries(shape)),
        // `left` is all zeros before the first chunk and after each.
        left_(zeros_beside(beside, {lists_}, ScalarType::Int)),
        integers_(empty_beside(beside, {2 * lists_ + entries_ / kLongList + 2}, ScalarType::Int)),
        // Of bytes, because it is no one type's.
        arrays_of_entries_(
            empty_beside(beside, {2 * entries_ * static_cast<int64_t>(sizeof(ListEntry<Real>))}, ScalarType::Byte)) {
  }

  InputLists<Real> of(const Chunk& chunk) const {
    auto* left = static_cast<int*>(left_.mutable_data_ptr());
    auto* begin = static_cast<int*>(integers_.mutable_data_ptr());
    int* length = begin + lists_;
    int* entries_placed = length + lists_;
    int* long_count = entries_placed + 1;
    int* long_lists = long_count + 1;
    auto* arrived = static_cast<ListEntry<Real>*>(arrays_of_entries_.mutable_data_ptr());
    const auto lists = static_cast<int>(chunk.shape.offset_groups * chunk.images * chunk.input_pixels());
    return {lists, left, begin, length, arrived, arrived + entries_, entries_placed, long_lists, long_count};
  }

 private:
  static int64_t pixel_entries(const DeformConvShape& shape) {
    return 4 * shape.taps() * shape.offset_groups;
  }

  int64_t lists_;
  int64_t entries_;
  Tensor left_;
  Tensor integers_;
  Tensor arrays_of_entries_;
};

}  // namespace resnet_cuda
