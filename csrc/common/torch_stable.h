// torch's stable headers. Every file here includes this one instead: it makes the headers of all torch versions from
// 2.10 on alike, and keeps their checks from using a stringstream.
#pragma once

#if defined(TORCH_ERROR_CODE_CHECK) || defined(STABLE_TORCH_ERROR_CODE_CHECK) || defined(STD_TORCH_CHECK)
#error "common/torch_stable.h must come before every header of torch's stable ABI"
#endif

#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/shim_utils.h>

#include "common/torch_errors.h"

// torch's three checks build their texts with a stringstream, which in a library with a libstdc++ of its own
// (-static-libstdc++) crashes or truncates the text. So torch's inline functions, included below, use ours. The check
// of a C function's code is TORCH_ERROR_CODE_CHECK up to torch 2.12 and STABLE_TORCH_ERROR_CODE_CHECK from 2.13 on.
#undef TORCH_ERROR_CODE_CHECK
#undef STABLE_TORCH_ERROR_CODE_CHECK
#undef STD_TORCH_CHECK
#define TORCH_ERROR_CODE_CHECK(call) RESNET_CUDA_TORCH_CHECK(call)
#define STABLE_TORCH_ERROR_CODE_CHECK(call) RESNET_CUDA_TORCH_CHECK(call)
#define STD_TORCH_CHECK(condition, ...)                                   \
  if (C10_UNLIKELY_OR_CONST(!(condition))) {                              \
    throw ::resnet_cuda::TorchError("torch's check failed: " #condition); \
  }

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

// TORCH_BOX that puts the operator's name in front of torch's errors, such as a failure to allocate.
#define RESNET_CUDA_BOX(function)                                 \
  [](StableIValue* stack, uint64_t arguments, uint64_t results) { \
    try {                                                         \
      TORCH_BOX(function)(stack, arguments, results);             \
    } catch (...) {                                               \
      ::resnet_cuda::named_rethrow(#function);                    \
    }                                                             \
  }
