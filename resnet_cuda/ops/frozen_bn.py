"""FrozenBatchNorm + residual + ReLU in one pass: public function, shape function, autograd and autocast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from resnet_cuda import _extension, reference
from resnet_cuda._backend import use_native_for
from resnet_cuda.ops._registration import (
    NAMESPACE,
    autocast_dtype,
    cast,
    no_second_derivative,
    register_autocast,
    traced,
)
from resnet_cuda.reference.checks import (
    check_frozen_bn_backward,
    check_frozen_bn_relu,
    check_tensor,
    output_memory_format,
)


def frozen_bn_relu(
    input: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    relu: bool = True,
    inplace: bool = False,
) -> Tensor:
    """``y = input * scale[c] + shift[c]``, plus ``residual`` where given, then ReLU where asked: one pass over memory.

    Args:
        input: (N, C, H, W), float64, float32, float16 or bfloat16; any strides, may be empty.
        scale: (C,), float32 or float64, constant: no gradient flows to it.
        shift: (C,), likewise.
        residual: input's shape and dtype, or None.
        relu: whether to clamp at 0; NaN stays NaN, and the gradient at 0 is 0.
        inplace: overwrite input and return it. Legal wherever nobody needs input's values for a backward, as after a
            convolution.

    Returns:
        input's shape and dtype, channels_last where the input is. Arithmetic is in float32 (float64 for a float64 input)
        with one rounding at the end. Under autocast input keeps its dtype and residual is cast to it.

    Raises:
        ValueError, RuntimeError: naming the argument that breaks a rule above, what it was and what is allowed.
        TypeError: for an argument that is not a tensor.
    """
    if (
        isinstance(input, Tensor)
        and isinstance(scale, Tensor)
        and isinstance(shift, Tensor)
        and (residual is None or isinstance(residual, Tensor))
        and not (torch.is_grad_enabled() and (input.requires_grad or (residual is not None and residual.requires_grad)))
        and use_native_for(input)
        and not traced()
    ):
        return _bare(input, scale, shift, residual, relu, inplace)

    op = "frozen_bn_relu"
    for name, value in (("input", input), ("scale", scale), ("shift", shift)):
        check_tensor(op, name, value)
    check_tensor(op, "residual", residual, optional=True)
    if autocast_dtype(input) is not None:
        residual = cast(residual, input.dtype)
    if inplace and input.requires_grad and input.is_leaf and torch.is_grad_enabled():
        # Said before anything is overwritten; autograd would say it afterwards.
        raise RuntimeError(
            f"{op}: input is a leaf that requires its gradient; it must be another tensor for inplace=True"
        )
    if not use_native_for(input):
        return reference.frozen_bn_relu(input, scale, shift, residual, relu, inplace)
    if traced():
        output = _FORWARD(input, scale, shift, residual, relu)
        # Functional in a graph: the compiler removes the copy where input is an intermediate.
        return input.copy_(output) if inplace else output
    return _FrozenBnRelu.apply(input, scale, shift, residual, relu, inplace)


def _bare(input, scale, shift, residual, relu, inplace):
    """Where nothing watches and no gradient is needed. Autocast's rules are the dispatcher's.

    A call's Python is cold when a layer has gone through megabytes since the last one, and then costs twenty times what it
    does in a loop, a tenth of a millisecond in all: hence its own way, with as little as can be.
    """
    with torch._C._AutoDispatchBelowAutograd():
        if not inplace:
            return _FORWARD(input, scale, shift, residual, relu)
        _IN_PLACE(input, scale, shift, residual, relu)
    # Somebody may have saved the tensor for a backward.
    torch.autograd.graph.increment_version(input)
    return input


class _FrozenBnRelu(torch.autograd.Function):
    """Eager autograd around the bare kernels. Saves the output where there is a ReLU, and nothing else of that size."""

    @staticmethod
    def forward(ctx, input, scale, shift, residual, relu, inplace):
        with torch._C._AutoDispatchBelowAutograd():
            if inplace:
                _IN_PLACE(input, scale, shift, residual, relu)
                ctx.mark_dirty(input)
                output = input
            else:
                output = _FORWARD(input, scale, shift, residual, relu)
        ctx.save_for_backward(scale, output if relu else None)
        return output

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():  # create_graph: differentiating the result must be an error
            return once_differentiable(_FrozenBnRelu.backward)(ctx, grad)  # comes back in no_grad
        # Without once_differentiable, which takes microseconds, and many more where its code is cold.
        with torch._C._AutoDispatchBelowAutograd():
            return _gradients(ctx, grad)


def _gradients(ctx, grad):
    """For input, scale, shift, residual, relu and inplace: None where there is none."""
    scale, output = ctx.saved_tensors
    need_input, _, _, need_residual = ctx.needs_input_grad[:4]
    # Without a ReLU the residual's gradient is the incoming one: nothing to compute or to write.
    passes_on = need_residual and output is None
    if passes_on and not need_input:
        return None, None, None, grad, None, None
    grad_input, grad_residual = _BACKWARD(grad, scale, output, need_input, need_residual and not passes_on)
    if passes_on:
        grad_residual = grad
    elif not need_residual:
        grad_residual = None
    return grad_input if need_input else None, None, None, grad_residual, None, None


def _backward(ctx, grad):
    return _gradients(ctx, grad)[:5]  # the operator has no inplace


def _setup_context(ctx, inputs, output):
    _input, scale, _shift, _residual, relu = inputs
    ctx.save_for_backward(scale, output if relu else None)


def _fake(input, scale, shift, residual, relu):
    check_frozen_bn_relu(input, scale, shift, residual)
    return torch.empty(input.shape, dtype=input.dtype, device=input.device, memory_format=output_memory_format(input))


def _fake_in_place(input, scale, shift, residual, relu):
    check_frozen_bn_relu(input, scale, shift, residual)


def _fake_backward(grad, scale, output, need_input, need_residual):
    check_frozen_bn_backward(grad, scale, output)
    memory_format = output_memory_format(grad if output is None else output)

    def like(needed):
        return torch.empty_like(grad, memory_format=memory_format) if needed else grad.new_empty((0,))

    return like(need_input), like(need_residual)


def _cast_arguments(dtype, input, scale, shift, residual, relu):
    return input, scale, shift, residual if dtype is None else cast(residual, input.dtype), relu


if _extension.CPU_LOADED:
    _FORWARD = torch.ops.resnet_cuda.frozen_bn_relu.default
    _IN_PLACE = torch.ops.resnet_cuda.frozen_bn_relu_.default
    _BACKWARD = torch.ops.resnet_cuda.frozen_bn_relu_backward.default
    torch.library.register_fake(f"{NAMESPACE}::frozen_bn_relu", _fake)
    torch.library.register_fake(f"{NAMESPACE}::frozen_bn_relu_", _fake_in_place)
    torch.library.register_fake(f"{NAMESPACE}::frozen_bn_relu_backward", _fake_backward)
    torch.library.register_autograd(f"{NAMESPACE}::frozen_bn_relu", _backward, setup_context=_setup_context)
    no_second_derivative("frozen_bn_relu")
    register_autocast("frozen_bn_relu", _cast_arguments)
    register_autocast("frozen_bn_relu_", _cast_arguments)
