// Images of a dense tensor, contiguous or channels_last, as the kernels want them: channels last, some at a time.
#pragma once

#include "common/tensors.h"
#include "common/transpose.cuh"

namespace resnet_cuda {

inline bool is_dense_channels_last(const Tensor& dense) {
  return output_memory_format(dense) == MemoryFormat::ChannelsLast;
}

// Whether its images must be copied to lie channels last: not where the two layouts are the same memory.
inline bool needs_buffer(const Tensor& dense) {
  return !is_dense_channels_last(dense) && dense.size(1) > 1 && dense.size(2) * dense.size(3) > 1;
}

// Bytes per image of the buffer, 0 where none is needed.
inline int64_t buffer_bytes(const Tensor& dense) {
  const int64_t elements = dense.size(1) * dense.size(2) * dense.size(3);
  return needs_buffer(dense) ? elements * static_cast<int64_t>(dense.element_size()) : 0;
}

// Images of a tensor that is read. Those of a contiguous tensor are transposed into a buffer, at most `most_images`.
template <typename T>
class SourceImages {
 public:
  SourceImages(const Launcher& launcher, const Tensor& dense, int64_t most_images)
      : launcher_(launcher),
        data_(dense.const_data_ptr<T>()),
        channels_(dense.size(1)),
        pixels_(dense.size(2) * dense.size(3)) {
    if (needs_buffer(dense)) {
      buffer_ = empty_beside(dense, {most_images * channels_ * pixels_}, dense.scalar_type());
    }
  }

  // [images, H, W, C] until the next call.
  const T* read(int64_t first, int64_t images) const {
    const T* source = data_ + first * channels_ * pixels_;
    if (!buffer_) {
      return source;
    }
    auto* target = static_cast<T*>(buffer_->mutable_data_ptr());
    transpose(launcher_, source, target, images, channels_, pixels_);
    return target;
  }

 private:
  const Launcher& launcher_;
  const T* data_;
  int64_t channels_;
  int64_t pixels_;
  std::optional<Tensor> buffer_;
};

// Images of a tensor that is written.
template <typename T>
class TargetImages {
 public:
  TargetImages(const Launcher& launcher, const Tensor& dense, int64_t most_images)
      : launcher_(launcher),
        data_(static_cast<T*>(dense.mutable_data_ptr())),
        channels_(dense.size(1)),
        pixels_(dense.size(2) * dense.size(3)) {
    if (needs_buffer(dense)) {
      buffer_ = empty_beside(dense, {most_images * channels_ * pixels_}, dense.scalar_type());
    }
  }

  // Where to write [images, H, W, C].
  T* begin(int64_t first) const {
    return buffer_ ? static_cast<T*>(buffer_->mutable_data_ptr()) : data_ + first * channels_ * pixels_;
  }

  void finish(int64_t first, int64_t images) const {
    if (buffer_) {
      const auto* source = static_cast<const T*>(buffer_->const_data_ptr());
      transpose(launcher_, source, data_ + first * channels_ * pixels_, images, pixels_, channels_);
    }
  }

 private:
  const Launcher& launcher_;
  T* data_;
  int64_t channels_;
  int64_t pixels_;
  std::optional<Tensor> buffer_;
};

}  // namespace resnet_cuda
