// The operands of wgmma's assembly: 64 or 128 registers of results, two descriptors, predicate, which operand is
// transposed; TF32 has no transposed ones. For common/warpgroup.cuh, whose `multiply` has the names used here.
#pragma once

#define RESNET_CUDA_REGISTERS_64                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#define RESNET_CUDA_REGISTERS_FROM_64                                                            \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define RESNET_CUDA_REGISTERS_128 RESNET_CUDA_REGISTERS_64 ", " RESNET_CUDA_REGISTERS_FROM_64

#define RESNET_CUDA_RESULTS_4(i) "+f"(value[i]), "+f"(value[(i) + 1]), "+f"(value[(i) + 2]), "+f"(value[(i) + 3])
#define RESNET_CUDA_RESULTS_16(i)                                                           \
  RESNET_CUDA_RESULTS_4(i), RESNET_CUDA_RESULTS_4((i) + 4), RESNET_CUDA_RESULTS_4((i) + 8), \
      RESNET_CUDA_RESULTS_4((i) + 12)
#define RESNET_CUDA_RESULTS_64(i)                                                                \
  RESNET_CUDA_RESULTS_16(i), RESNET_CUDA_RESULTS_16((i) + 16), RESNET_CUDA_RESULTS_16((i) + 32), \
      RESNET_CUDA_RESULTS_16((i) + 48)

#define RESNET_CUDA_WGMMA_128(types)                                                     \
  asm volatile(                                                                          \
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %66, 0;\n\t"                                 \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." types " {" RESNET_CUDA_REGISTERS_64 \
      "}, "                                                                              \
      "%64, %65, p, 1, 1, %67, %68;\n\t}"                                                \
      : RESNET_CUDA_RESULTS_64(0)                                                        \
      : "l"(a.bits), "l"(b.bits), "r"(scale), "n"(kTransA), "n"(kTransB))
#define RESNET_CUDA_WGMMA_256(types)                                                      \
  asm volatile(                                                                           \
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %130, 0;\n\t"                                 \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." types " {" RESNET_CUDA_REGISTERS_128 \
      "}, "                                                                               \
      "%128, %129, p, 1, 1, %131, %132;\n\t}"                                             \
      : RESNET_CUDA_RESULTS_64(0), RESNET_CUDA_RESULTS_64(64)                             \
      : "l"(a.bits), "l"(b.bits), "r"(scale), "n"(kTransA), "n"(kTransB))
#define RESNET_CUDA_WGMMA_128_TF32()                                                    \
  asm volatile(                                                                         \
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %66, 0;\n\t"                                \
      "wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 {" RESNET_CUDA_REGISTERS_64 \
      "}, "                                                                             \
      "%64, %65, p, 1, 1;\n\t}"                                                         \
      : RESNET_CUDA_RESULTS_64(0)                                                       \
      : "l"(a.bits), "l"(b.bits), "r"(scale))
#define RESNET_CUDA_WGMMA_256_TF32()                                                     \
  asm volatile(                                                                          \
      "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %130, 0;\n\t"                                \
      "wgmma.mma_async.sync.aligned.m64n256k8.f32.tf32.tf32 {" RESNET_CUDA_REGISTERS_128 \
      "}, "                                                                              \
      "%128, %129, p, 1, 1;\n\t}"                                                        \
      : RESNET_CUDA_RESULTS_64(0), RESNET_CUDA_RESULTS_64(64)                            \
      : "l"(a.bits), "l"(b.bits), "r"(scale))
