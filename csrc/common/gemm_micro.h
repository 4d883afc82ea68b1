// The micro-kernel of the CPU's matrix products: a block of C in registers, B packed into panels.
#pragma once

#include "common/bfloat16_pair.h"
#include "common/cache_line.h"
#include "common/vec.h"

namespace resnet_cuda {
namespace RESNET_CUDA_ISA {

// Rows and vectors of the register block: 24 of AVX-512's 32 registers, 12 of AVX2's 16, 8 of SSE's 16 and NEON's 16 or
// 32.
#if defined(__AVX512F__)
constexpr int kBlockRows = 12;
#elif defined(__AVX2__)
constexpr int kBlockRows = 6;
#else
constexpr int kBlockRows = 4;
#endif
constexpr int kBlockVectors = 2;

// Width of a panel of output channels: that of the register block, or one vector where the group has no more.
template <typename Real>
RESNET_CUDA_INLINE int64_t panel_for(int64_t group_outputs) {
  return group_outputs <= kLanes<Real> ? kLanes<Real> : kBlockVectors * kLanes<Real>;
}

// Whether a product is added to C or overwrites it.
enum class Product { kAdded, kStored };

// sum += left * row, lane by lane; of pairs: bfloat16_pair.h.
template <typename Real>
RESNET_CUDA_INLINE void add_product(Real left, const Vec<Real>& row, Vec<Real>& sum) {
  sum += left * row;
}

// What a product does beside its arithmetic: nothing, or prefetch memory that a later product reads.
struct NoPrefetch {
  RESNET_CUDA_INLINE_MEMBER void step() {
  }
};

// One cache line per step, from `line` on, into the second-level cache.
struct PrefetchLines {
  const char* line;

  RESNET_CUDA_INLINE_MEMBER void step() {
    __builtin_prefetch(line, 0, 2);
    line += kCacheLine;
  }
};

// C[i][0..panel) += sum over k of A(i, k) * B[k][0..panel), i < kBlockRows, with A(i, k) = a[i * a_row + k * a_step], B
// packed into rows of kVectors vectors that are b_row apart, and the rows of C c_row apart. The order of additions does
// not depend on i. An Element is a real number, or a pair of bfloat16 whose product is the pairs' dot product. There is
// one step of `prefetch` per k.
template <typename Element, Product kProduct, int kVectors, typename Prefetch = NoPrefetch>
RESNET_CUDA_INLINE void multiply_vectors(
    int64_t depth,
    const Element* __restrict__ a,
    int64_t a_row,
    int64_t a_step,
    const Element* __restrict__ b,
    int64_t b_row,
    RealOf<Element>* __restrict__ c,
    int64_t c_row,
    Prefetch prefetch = {}) {
  using Real = RealOf<Element>;
  static_assert(kLanes<Element> == kLanes<Real>);
  Vec<Real> sum[kBlockRows][kVectors];
#pragma GCC unroll 12
  for (int i = 0; i < kBlockRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      sum[i][j] = Vec<Real>{};
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    prefetch.step();
    Vec<Element> row[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      row[j] = load(b + j * kLanes<Element>);
    }
#pragma GCC unroll 12
    for (int i = 0; i < kBlockRows; ++i) {
      const Element left = a[i * a_row];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) {
        add_product(left, row[j], sum[i][j]);
      }
    }
    a += a_step;
    b += b_row;
  }
#pragma GCC unroll 12
  for (int i = 0; i < kBlockRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      Real* target = c + i * c_row + j * kLanes<Real>;
      store(kProduct == Product::kAdded ? load(target) + sum[i][j] : sum[i][j], target);
    }
  }
}

// The same with the rows of B adjacent: one panel, of panel_for() columns.
template <typename Element, Product kProduct = Product::kAdded>
RESNET_CUDA_INLINE void multiply_block(
    int64_t panel,
    int64_t depth,
    const Element* a,
    int64_t a_row,
    int64_t a_step,
    const Element* b,
    RealOf<Element>* c,
    int64_t c_row) {
  if (panel == kLanes<Element>) {
    multiply_vectors<Element, kProduct, 1>(depth, a, a_row, a_step, b, kLanes<Element>, c, c_row);
  } else {
    multiply_vectors<Element, kProduct, kBlockVectors>(
        depth, a, a_row, a_step, b, kBlockVectors * kLanes<Element>, c, c_row);
  }
}

}  // namespace RESNET_CUDA_ISA
}  // namespace resnet_cuda
