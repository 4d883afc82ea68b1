// The weight's gradient where a call is several chunks: products in the compute type, rounded once.
#pragma once

#include "common/launch.cuh"
#include "common/tensors.h"
#include "deform_conv/cuda_gemm_operands.h"
#include "deform_conv/cuda_tap_order.cuh"
#include "deform_conv/cuda_workspace.h"

namespace resnet_cuda {

// Index: element. Adds all other products to the first.
template <typename Real>
struct SumProducts {
  Real* products;  // [count][elements]
  int64_t elements;
  int count;

  RESNET_CUDA_BODY void operator()(int64_t index) const {
    Real sum = products[index];
    for (int i = 1; i < count; ++i) {
      sum += products[i * elements + index];
    }
    products[index] = sum;
  }
};

// Room for as many chunks' products as a sixth of the workspace holds, 2 to 4. Each chunk has one to itself; once all
// are full, SumProducts frees all but the first.
template <typename T, typename Real>
class WeightSums {
 public:
  static constexpr int kMost = 4;

  static int64_t bytes(int64_t elements, int64_t workspace = kWorkspaceBytes) {
    return room(elements, workspace) * elements * static_cast<int64_t>(sizeof(Real));
  }

  WeightSums(const Launcher& launcher, const Tensor& beside, ScalarType real, int64_t elements)
      : launcher_(launcher),
        elements_(elements),
        room_(room(elements)),
        products_(empty_beside(beside, {room_ * elements}, real)) {
  }

  // Where the next chunk's product goes: [groups, O/groups, taps * C/groups].
  Tensor next(const DeformConvShape& shape) {
    if (filled_ == room_) {
      launcher_.run(elements_, SumProducts<Real>{data(), elements_, filled_});
      filled_ = 1;
    }
    return weight_matrices(products_, shape, filled_++ * elements_);
  }

  // Writes `gradient`, [O, C/groups, kh, kw], contiguous.
  void finish(const DeformConvShape& shape, const Tensor& gradient) const {
    reorder_taps<true>(launcher_, data(), static_cast<T*>(gradient.mutable_data_ptr()), shape, filled_);
  }

 private:
  static int room(int64_t elements, int64_t workspace = kWorkspaceBytes) {
    const int64_t fit = workspace / 6 / (elements * static_cast<int64_t>(sizeof(Real)));
    return static_cast<int>(std::clamp<int64_t>(fit, 2, kMost));
  }

  Real* data() const {
    return static_cast<Real*>(products_.mutable_data_ptr());
  }

  const Launcher& launcher_;
  int64_t elements_;
  int room_;
  int filled_ = 0;
  Tensor products_;
};

}  // namespace resnet_cuda
