// Whether a fused kernel is asked for. No GPU has run one yet, so each is off unless its environment variable is 1 or,
// where a call that it does not fit is to be an error, require.
#pragma once

#include <cstdlib>
#include <cstring>

#include "common/checks.h"
#include "common/text.h"

namespace resnet_cuda {

class FusedChoice {
 public:
  // `variable` outlives it.
  explicit FusedChoice(const char* variable) : variable_(variable) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0' || std::strcmp(value, "0") == 0) {
      return;
    }
    wanted_ = true;
    required_ = std::strcmp(value, "require") == 0;
    RESNET_CUDA_CHECK_ARGUMENT(
        required_ || std::strcmp(value, "1") == 0, "deform_conv2d", variable, join("'", value, "'"), "0, 1 or require");
  }

  // Whether to try.
  bool wanted() const {
    return wanted_;
  }

  // Raises an error where it is required and does not run; gives `runs`.
  bool checked(bool runs) const {
    RESNET_CUDA_CHECK_ARGUMENT(
        runs || !required_,
        "deform_conv2d",
        variable_,
        "'require'",
        "0 or 1 on this GPU, for these shapes, dtypes and layouts, or for a library without code for sm_90a");
    return runs;
  }

 private:
  const char* variable_;
  bool wanted_ = false;
  bool required_ = false;
};

}  // namespace resnet_cuda
