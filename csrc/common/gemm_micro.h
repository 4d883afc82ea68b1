// The innermost matrix product of the CPU kernels: a block of C held in registers.
#pragma once

#include "common/vec.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// Rows and vectors of the register block. 24 of AVX-512's 32 registers, 12 of AVX2's 16, 8 of SSE's and of NEON's 16 or 32.
#if defined(__AVX512F__)
constexpr int kBlockRows = 12;
#elif defined(__AVX2__)
constexpr int kBlockRows = 6;
#else
constexpr int kBlockRows = 4;
#endif
constexpr int kBlockVectors = 2;

template <typename Real>
constexpr int kPanel = kBlockVectors * kLanes<Real>;

// C[i][0..kPanel) += sum over k of A(i, k) * B[k][0..kPanel), i < kBlockRows, with A(i, k) = a[i * a_row + k * a_step], B
// packed (kPanel apart) and the rows of C c_row apart. The order of additions does not depend on i.
template <typename Real>
RESNET_CUDA_INLINE void multiply_block(
    int64_t depth,
    const Real* __restrict__ a,
    int64_t a_row,
    int64_t a_step,
    const Real* __restrict__ b,
    Real* __restrict__ c,
    int64_t c_row) {
  Vec<Real> sum[kBlockRows][kBlockVectors];
#pragma GCC unroll 12
  for (int i = 0; i < kBlockRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kBlockVectors; ++j) {
      sum[i][j] = Vec<Real>{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec<Real> row[kBlockVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kBlockVectors; ++j) {
      row[j] = load(b + j * kLanes<Real>);
    }
#pragma GCC unroll 12
    for (int i = 0; i < kBlockRows; ++i) {
      const Real left = a[i * a_row];
#pragma GCC unroll 2
      for (int j = 0; j < kBlockVectors; ++j) {
        sum[i][j] += left * row[j];
      }
    }
    a += a_step;
    b += kPanel<Real>;
  }
#pragma GCC unroll 12
  for (int i = 0; i < kBlockRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kBlockVectors; ++j) {
      Real* target = c + i * c_row + j * kLanes<Real>;
      store(load(target) + sum[i][j], target);
    }
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
