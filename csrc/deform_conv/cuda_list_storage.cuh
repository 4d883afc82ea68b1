// Memory of the lists (cuda_input_lists.cuh) of one chunk.
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
  // Bytes per output pixel: four entries per tap, unsorted and sorted, and the long lists that they could make.
  static int64_t pixel_bytes(const DeformConvShape& shape) {
    const int64_t entries = pixel_entries(shape);
    return 2 * static_cast<int64_t>(sizeof(ListEntry<Real>)) * entries +
           static_cast<int64_t>(sizeof(int)) * ceil_div(entries, kLongList);
  }

  ListStorage(const Tensor& beside, const DeformConvShape& shape, const ChunkSizes& sizes)
      : lists_(sizes.images * shape.offset_groups * shape.height * shape.width),
        entries_(sizes.images * sizes.rows * shape.out_width * pixel_entries(shape)),
        remaining_(zeros_beside(beside, {lists_}, ScalarType::Int)),
        integers_(empty_beside(beside, {2 * lists_ + entries_ / kLongList + 2}, ScalarType::Int)),
        entry_bytes_(
            empty_beside(beside, {2 * entries_ * static_cast<int64_t>(sizeof(ListEntry<Real>))}, ScalarType::Byte)) {
  }

  InputLists<Real> of(const Chunk& chunk) const {
    auto* remaining = static_cast<int*>(remaining_.mutable_data_ptr());
    auto* begin = static_cast<int*>(integers_.mutable_data_ptr());
    int* length = begin + lists_;
    int* entry_count = length + lists_;
    int* long_count = entry_count + 1;
    int* long_lists = long_count + 1;
    auto* unsorted = static_cast<ListEntry<Real>*>(entry_bytes_.mutable_data_ptr());
    const auto lists = static_cast<int>(chunk.shape.offset_groups * chunk.images * chunk.input_pixels());
    return {lists, remaining, begin, length, unsorted, unsorted + entries_, entry_count, long_lists, long_count};
  }

 private:
  static int64_t pixel_entries(const DeformConvShape& shape) {
    return 4 * shape.taps() * shape.offset_groups;
  }

  int64_t lists_;
  int64_t entries_;
  Tensor remaining_;
  Tensor integers_;
  Tensor entry_bytes_;  // ListEntry has no dtype of torch's
};

}  // namespace resnet_cuda
