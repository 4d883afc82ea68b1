// Where schemas and CUDA kernels are registered.
//
// RESNET_CUDA_KEY is the device key; the emulation (tests/emulation) compiles the same .cu files with KEY=CPU, under a
// namespace of its own.
#pragma once

#include "common/torch_stable.h"

#if !defined(RESNET_CUDA_NAMESPACE)
#define RESNET_CUDA_NAMESPACE resnet_cuda
#endif
#if !defined(RESNET_CUDA_KEY)
#define RESNET_CUDA_KEY CUDA
#endif

// The second step expands the two names before torch's macros paste them.
#define RESNET_CUDA_SCHEMAS_IN(ns, m) STABLE_TORCH_LIBRARY(ns, m)
#define RESNET_CUDA_KERNELS_IN(ns, key, m) STABLE_TORCH_LIBRARY_IMPL(ns, key, m)
#define RESNET_CUDA_MORE_SCHEMAS_IN(ns, m) STABLE_TORCH_LIBRARY_FRAGMENT(ns, m)
#define RESNET_CUDA_SCHEMAS(m) RESNET_CUDA_SCHEMAS_IN(RESNET_CUDA_NAMESPACE, m)
// Schemas of an operator that exists only beside its kernels.
#define RESNET_CUDA_MORE_SCHEMAS(m) RESNET_CUDA_MORE_SCHEMAS_IN(RESNET_CUDA_NAMESPACE, m)
#define RESNET_CUDA_REGISTER_CUDA(m) RESNET_CUDA_KERNELS_IN(RESNET_CUDA_NAMESPACE, RESNET_CUDA_KEY, m)
