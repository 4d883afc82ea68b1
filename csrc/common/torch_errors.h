// Errors of torch's C functions, which return a code. The exception's type is lost; torch 2.13 and later keep its text,
// earlier ones only write it to the standard error.
#pragma once

#include <dlfcn.h>

#include <new>
#include <stdexcept>
#include <string>

namespace resnet_cuda {

// The text of this thread's last failure; empty where the running torch does not keep it.
inline std::string torch_error_text() {
  // Looked up at run time: a library for every torch from 2.10 on cannot be linked with a function of 2.13.
  using Getter = const char* (*)();
  const auto getter = reinterpret_cast<Getter>(dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  const char* text = getter != nullptr ? getter() : nullptr;
  return text != nullptr ? text : "";
}

// A failure in torch, not of an argument. named_rethrow puts the operator's name in front of its text.
class TorchError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

constexpr const char* kUnknownReason = "torch wrote the reason to the standard error";

[[noreturn]] inline void throw_torch_error(const char* call) {
  const std::string text = torch_error_text();
  throw TorchError((text.empty() ? kUnknownReason : text) + " (" + call + " failed)");
}

// For the catch (...) around an operator's `function`, such as "&resnet_cuda::deform_conv2d".
[[noreturn]] inline void named_rethrow(const char* function) {
  const std::string name = function;
  const std::string op = name.substr(name.find_last_of(":&") + 1);
  try {
    throw;
  } catch (const TorchError& error) {
    throw std::runtime_error(op + ": " + error.what());
  } catch (const std::bad_alloc&) {
    throw std::runtime_error(op + ": out of memory for the scratch memory of the CPU kernels");
  }
}

}  // namespace resnet_cuda

// Has the form of torch's macros, which it replaces in torch's own headers (common/torch_stable.h).
#define RESNET_CUDA_TORCH_CHECK(call)        \
  if ((call) != 0) {                         \
    ::resnet_cuda::throw_torch_error(#call); \
  }
