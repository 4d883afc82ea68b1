// Memory of the input lists (cuda_input_lists.cuh) of some images, or of some rows of one, and the launches that build
// them.
#pragma once

#include "common/launch.cuh"
#include "common/tensors.h"
#include "deform_conv/cuda_input_lists.cuh"
#include "deform_conv/cuda_invert_taps.cuh"
#include "deform_conv/cuda_invert_taps_lists.cuh"
#include "deform_conv/cuda_invert_taps_search.cuh"
#include "deform_conv/cuda_tap_corners.cuh"

namespace resnet_cuda {

template <typename Real>
class ListStorage {
 public:
  // Bytes for `images` images of `rows` rows of the output each.
  static int64_t bytes(const DeformConvShape& shape, int64_t images, int64_t rows) {
    const Counts counts(shape, images, rows);
    return counts.group_bytes() + counts.entries * kEntryBytes + counts.integers() * kIntegerBytes;
  }

  // The same for rows of one image: at most fixed_bytes + rows * row_bytes.
  static int64_t fixed_bytes(const DeformConvShape& shape) {
    const int64_t more_groups = shape.offset_groups * shape.taps();
    const int64_t more_outer = shape.offset_groups * (ceil_div(shape.taps(), device::kWarp) + 1);
    return bytes(shape, 1, 0) + more_groups * kGroupBytes + more_outer * kBoxBytes + kIntegerBytes;
  }
  static int64_t row_bytes(const DeformConvShape& shape) {
    return ceil_div(bytes(shape, 1, device::kWarp) - bytes(shape, 1, 0), device::kWarp);
  }

  ListStorage(const Tensor& beside, const DeformConvShape& shape, int64_t images, int64_t rows)
      : counts_(shape, images, rows),
        groups_(empty_beside(beside, {counts_.group_bytes()}, ScalarType::Byte)),
        entries_(empty_beside(beside, {counts_.entries * kEntryBytes}, ScalarType::Byte)),
        integers_(empty_beside(beside, {counts_.integers()}, ScalarType::Int)) {
  }

  // The lists of a chunk of at most so many images and rows.
  InputLists<Real> build(const Launcher& launcher, const Chunk& chunk, const Positions& positions) const {
    const DeformConvShape& shape = chunk.shape;
    const auto offset_groups = static_cast<int>(shape.offset_groups);
    const auto taps = static_cast<int>(shape.taps());
    auto* ranges = static_cast<ListRange*>(integers_.mutable_data_ptr());
    int* entry_count = reinterpret_cast<int*>(ranges + counts_.lists);
    int* long_count = entry_count + 1;
    const InputLists<Real> lists{
        chunk.images,
        ranges,
        static_cast<ListEntry<Real>*>(entries_.mutable_data_ptr()),
        entry_count,
        long_count + 1,
        long_count};

    auto* boxes = static_cast<CornerBox*>(groups_.mutable_data_ptr());
    CornerBox* outer_boxes = boxes + counts_.groups;
    const TapTable table(chunk, reinterpret_cast<TapCorner*>(outer_boxes + counts_.outer), boxes, outer_boxes);
    const int image_boxes = taps * table.tap_groups.divisor();
    using Corners = TapCorners<Real>;
    const int groups = offset_groups * chunk.images * image_boxes;
    launcher.launch(
        ceil_div(groups, Corners::kWarps),
        Corners{
            chunk,
            positions,
            table,
            {groups, FastDivision32(taps), FastDivision32(chunk.images)},
            entry_count,
            long_count});

    const int image_outer = outer_boxes_of(image_boxes);
    if (image_outer > 0) {
      const int count = offset_groups * chunk.images * image_outer;
      launcher.launch(
          ceil_div(count, OuterBoxes::kWarps), OuterBoxes{table, image_boxes, count, FastDivision32(image_outer)});
    }
    const InputTiling tiling(static_cast<int>(shape.height), static_cast<int>(shape.width));
    launcher.launch(
        static_cast<int64_t>(offset_groups) * chunk.images * tiling.tiles(),
        InvertTaps<Real>{
            chunk,
            positions,
            table,
            lists,
            tiling,
            FastDivision32(tiling.tiles()),
            FastDivision32(chunk.images),
            image_boxes,
            image_outer});
    return lists;
  }

 private:
  static constexpr int64_t kBoxBytes = sizeof(CornerBox);
  static constexpr int64_t kGroupBytes = kBoxBytes + device::kWarp * sizeof(TapCorner);
  static constexpr int64_t kEntryBytes = sizeof(ListEntry<Real>);
  static constexpr int64_t kIntegerBytes = sizeof(int);

  struct Counts {
    int64_t groups;   // of 32 pixels of a tap
    int64_t outer;    // boxes around 32 groups' boxes
    int64_t entries;  // at most four per tap
    int64_t lists;

    Counts(const DeformConvShape& shape, int64_t images, int64_t rows) {
      const int64_t taps = images * shape.offset_groups * shape.taps();
      const int64_t pixels = rows * shape.out_width;
      const int64_t tap_groups = ceil_div(pixels, device::kWarp);
      groups = taps * tap_groups;
      outer = images * shape.offset_groups * ceil_div(shape.taps() * tap_groups, device::kWarp);
      entries = 4 * taps * pixels + kListStep;
      lists = images * shape.offset_groups * shape.height * shape.width;
    }
    int64_t group_bytes() const {
      return groups * kGroupBytes + outer * kBoxBytes;
    }
    // A range per list; two counters; the long lists that the entries could make.
    int64_t integers() const {
      return 2 * lists + 2 + entries / kLongList;
    }
  };

  Counts counts_;
  Tensor groups_;   // neither these nor the entries have a dtype of torch's
  Tensor entries_;  // [entries]
  Tensor integers_;
};

}  // namespace resnet_cuda
