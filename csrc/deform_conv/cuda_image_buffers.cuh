// Images of a dense tensor, contiguous or channels_last, as the kernels read and write them: channels last (NHWC).
#pragma once

#include "common/launch.cuh"
#include "common/tensors.h"

namespace resnet_cuda {

inline bool is_dense_channels_last(const Tensor& dense) {
  return output_memory_format(dense) == MemoryFormat::ChannelsLast;
}

// Whether its images must be transposed. With one channel or one pixel both layouts are the same memory.
inline bool needs_buffer(const Tensor& dense) {
  return !is_dense_channels_last(dense) && dense.size(1) > 1 && dense.size(2) * dense.size(3) > 1;
}

// Bytes per image of the buffer, 0 where none is needed.
inline int64_t buffer_bytes(const Tensor& dense) {
  const int64_t elements = dense.size(1) * dense.size(2) * dense.size(3);
  return needs_buffer(dense) ? elements * static_cast<int64_t>(dense.element_size()) : 0;
}

// Transposes [images][rows][columns] of elements of 2, 4 or 8 bytes. Not a template: where files for sm_90a and others
// instantiated the same kernel, the linker would keep one of the two, perhaps the one without code for other GPUs.
void transpose_images(
    const Launcher& launcher,
    const void* source,
    void* target,
    size_t element_bytes,
    int64_t images,
    int64_t rows,
    int64_t columns);

// Images of a tensor with a buffer for at most `most_images` of them, where they must be transposed.
class BufferedImages {
 protected:
  BufferedImages(const Launcher& launcher, const Tensor& dense, int64_t most_images)
      : launcher_(launcher), channels_(dense.size(1)), pixels_(dense.size(2) * dense.size(3)) {
    if (needs_buffer(dense)) {
      buffer_ = empty_beside(dense, {most_images * channels_ * pixels_}, dense.scalar_type());
    }
  }

  const Launcher& launcher_;
  int64_t channels_;
  int64_t pixels_;
  std::optional<Tensor> buffer_;
};

// Images of a tensor that is read.
template <typename T>
class SourceImages : BufferedImages {
 public:
  SourceImages(const Launcher& launcher, const Tensor& dense, int64_t most_images)
      : BufferedImages(launcher, dense, most_images), data_(dense.const_data_ptr<T>()) {
  }

  // [images, H, W, C], valid until the next call.
  const T* read(int64_t first, int64_t images) const {
    const T* source = data_ + first * channels_ * pixels_;
    if (!buffer_) {
      return source;
    }
    auto* target = static_cast<T*>(buffer_->mutable_data_ptr());
    transpose_images(launcher_, source, target, sizeof(T), images, channels_, pixels_);
    return target;
  }

 private:
  const T* data_;
};

// Images of a tensor that is written.
template <typename T>
class TargetImages : BufferedImages {
 public:
  TargetImages(const Launcher& launcher, const Tensor& dense, int64_t most_images)
      : BufferedImages(launcher, dense, most_images), data_(static_cast<T*>(dense.mutable_data_ptr())) {
  }

  // Where to write [images, H, W, C].
  T* begin(int64_t first) const {
    return buffer_ ? static_cast<T*>(buffer_->mutable_data_ptr()) : data_ + first * channels_ * pixels_;
  }

  // After the last kernel that writes there.
  void finish(int64_t first, int64_t images) const {
    if (buffer_) {
      const auto* source = static_cast<const T*>(buffer_->const_data_ptr());
      T* target = data_ + first * channels_ * pixels_;
      transpose_images(launcher_, source, target, sizeof(T), images, pixels_, channels_);
    }
  }

 private:
  T* data_;
};

}  // namespace resnet_cuda
