// The arithmetic of Winograd's convolution F(4x4, 3x3) (Lavin and Gray 2016, arXiv:1509.09308): sizes, and the
// one-dimensional transforms of input and output, for one element or for a vector of them. The weight's transform is in
// resnet_cuda/reference/conv2d_winograd.py.
//
// A tile is 4x4 output pixels; its patch is the 6x6 input pixels that they need. With d the patch and g the weight of
// an input and an output channel, the tile is A^T [(G g G^T) * (B^T d B)] A, where * is elementwise: 36 multiplications
// instead of the 144 of a direct convolution.
#pragma once

#include "common/host_device.h"

namespace resnet_cuda {

constexpr int kTileSide = 4;
constexpr int kPatchSide = 6;
constexpr int kPatchPixels = kPatchSide * kPatchSide;
// Output channels side by side in the transformed weight. One width for every instruction set, so that a weight that
// was transformed on one machine can be used on another.
constexpr int64_t kWinogradPanel = 32;

struct WinogradShape {
  int64_t batch;
  int64_t channels;
  int64_t height;
  int64_t width;
  int64_t out_channels;
  int64_t out_height;
  int64_t out_width;
  int64_t pad_h;
  int64_t pad_w;

  RESNET_CUDA_HOST_DEVICE int64_t tile_rows() const {
    return ceil_div(out_height, kTileSide);
  }
  RESNET_CUDA_HOST_DEVICE int64_t tile_columns() const {
    return ceil_div(out_width, kTileSide);
  }
  RESNET_CUDA_HOST_DEVICE int64_t tiles() const {
    return batch * tile_rows() * tile_columns();
  }
  RESNET_CUDA_HOST_DEVICE int64_t panels() const {
    return ceil_div(out_channels, kWinogradPanel);
  }
};

// The polynomials are evaluated at 0, +-p, +-q and infinity. The usual +-1 and +-2 amplify rounding errors twice as
// much; these (Barabasz et al. 2020, arXiv:1803.10986, on the choice) have powers that float32 holds exactly.
constexpr float kP = 0.75f;
constexpr float kQ = 1.5f;

// B^T d: six of the patch's pixels, in a row or a column, to values at the six points. `Value` is float or a vector.
template <typename Value>
RESNET_CUDA_HOST_DEVICE void transform_input(const Value (&d)[kPatchSide], Value (&values)[kPatchSide]) {
  constexpr float kP2 = kP * kP;
  constexpr float kQ2 = kQ * kQ;
  const Value even_p = d[4] - kQ2 * d[2];
  const Value odd_p = d[3] - kQ2 * d[1];
  const Value even_q = d[4] - kP2 * d[2];
  const Value odd_q = d[3] - kP2 * d[1];
  values[0] = kP2 * kQ2 * d[0] + (d[4] - (kP2 + kQ2) * d[2]);
  values[1] = even_p + kP * odd_p;
  values[2] = even_p - kP * odd_p;
  values[3] = even_q + kQ * odd_q;
  values[4] = even_q - kQ * odd_q;
  values[5] = kP2 * kQ2 * d[1] + (d[5] - (kP2 + kQ2) * d[3]);
}

// A^T m: products at the six points to four of the tile's pixels.
template <typename Value>
RESNET_CUDA_HOST_DEVICE void transform_output(const Value (&m)[kPatchSide], Value (&pixels)[kTileSide]) {
  const Value sum_p = m[1] + m[2];
  const Value difference_p = m[1] - m[2];
  const Value sum_q = m[3] + m[4];
  const Value difference_q = m[3] - m[4];
  pixels[0] = m[0] + (sum_p + sum_q);
  pixels[1] = kP * difference_p + kQ * difference_q;
  pixels[2] = kP * kP * sum_p + kQ * kQ * sum_q;
  pixels[3] = m[5] + (kP * kP * kP * difference_p + kQ * kQ * kQ * difference_q);
}

}  // namespace resnet_cuda
