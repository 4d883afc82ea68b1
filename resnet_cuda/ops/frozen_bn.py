"""FrozenBatchNorm + residual + ReLU in one pass, by a function of scale and shift and one of a layer's buffers."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor
from torch.fx import Proxy

from resnet_cuda import _extension, reference
from resnet_cuda._arguments import flag
from resnet_cuda._backend import use_native_for
from resnet_cuda.ops._registration import (
    autocast_dtype,
    call_in_backward,
    call_without_graph,
    cast,
    exporting_to_onnx,
    is_distributed,
    needs_gradient,
    needs_registered_op,
    record,
    refuse_autograd,
    register_autocast,
    register_autograd,
    register_fake,
    transformed,
)
from resnet_cuda.reference.checks import (
    check_frozen_batch_norm,
    check_frozen_bn_backward,
    check_frozen_bn_relu,
    check_needs_no_gradient,
    check_tensor,
    compute_dtype,
    output_memory_format,
)
from resnet_cuda.reference.frozen_bn import scale_and_shift


def frozen_bn_relu(
    input: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    relu: bool = True,
    inplace: bool = False,
) -> Tensor:
    """``y = input * scale[c] + shift[c]``, plus ``residual`` if given, then ReLU if ``relu``: one pass over memory.

    Args:
        input: (N, C, H, W), float64, float32, float16 or bfloat16; any strides, may be empty.
        scale: (C,), float32 or float64, on input's device; constant: it is an error if it requires a gradient.
        shift: (C,), likewise.
        residual: input's shape, dtype and device, or None.
        relu: whether to clamp at 0; NaN stays NaN, and the gradient at 0 is 0.
        inplace: overwrite input and return it. Allowed if no backward needs input's values, as after a convolution.

    Returns:
        input's shape and dtype, channels_last where the input is. Arithmetic is in float32 (float64 for a float64
        input) with one rounding at the end. Under autocast input keeps its dtype and residual is cast to it.

    Raises:
        ValueError, RuntimeError: naming the argument that breaks a rule above, its value and what is allowed;
            RuntimeError for ``inplace`` on a leaf that requires a gradient.
        TypeError: for an argument that is not a tensor.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167) with constant statistics [torchvision.ops.FrozenBatchNorm2d].
    """
    if isinstance(input, Proxy) or isinstance(residual, Proxy):
        return record(frozen_bn_relu, input, scale, shift, residual, relu, inplace)
    return _run("frozen_bn_relu", ("scale", "shift"), input, (scale, shift), residual, relu, inplace)


_BUFFERS = ("weight", "bias", "running_mean", "running_var")


def frozen_batch_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    residual: Tensor | None = None,
    relu: bool = False,
    inplace: bool = False,
) -> Tensor:
    """:func:`frozen_bn_relu` with the scale and shift of a FrozenBatchNorm2d's buffers.

    The kernels compute scale and shift in every call: nothing is cached, so nothing can become stale.

    Args:
        input, relu, inplace: as for :func:`frozen_bn_relu`.
        residual: input's shape and device, or None. Of another floating-point dtype: sum and ReLU are passes of their
            own, not in place, and the result has the dtype of torch's ``+``.
        weight, bias, running_mean, running_var: (C,), float64, float32, float16 or bfloat16, on input's device,
            constant.
        eps: added to the variance. A channel of variance 0 at eps 0 gives its bias.

    Returns:
        As :func:`frozen_bn_relu`.

    Raises:
        ValueError, RuntimeError: as :func:`frozen_bn_relu`.
        TypeError: for an argument that is not a tensor, or an ``eps`` that is not a number.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167) with constant statistics [torchvision.ops.FrozenBatchNorm2d].
    """
    if isinstance(input, Proxy) or isinstance(residual, Proxy):
        buffers = (weight, bias, running_mean, running_var)
        return record(frozen_batch_norm, input, *buffers, eps, residual, relu, inplace)
    if type(eps) is not float:
        eps = _checked_eps(eps)
    constants = (weight, bias, running_mean, running_var, eps)
    if residual is not None and _promotes(input, residual):
        output = _run("frozen_batch_norm", _BUFFERS, input, constants, None, False, inplace) + residual
        return output.relu() if flag("frozen_batch_norm", "relu", relu) else output
    return _run("frozen_batch_norm", _BUFFERS, input, constants, residual, relu, inplace)


def _promotes(input: object, residual: object) -> bool:
    """Whether the sum of a norm's result and ``residual`` has another dtype than ``input``, or residual has."""
    if not isinstance(input, Tensor) or not isinstance(residual, Tensor) or residual.dtype == input.dtype:
        return False
    floating = input.is_floating_point() and residual.is_floating_point()
    return floating and residual.shape == input.shape and autocast_dtype(input) is None


def _checked_eps(eps: object) -> float:
    if isinstance(eps, bool) or not isinstance(eps, Real):
        raise TypeError(f"frozen_batch_norm: eps is {eps!r}; it must be a number")
    return float(eps)


def _run(op, names, input, constants, residual, relu, inplace):
    """``op`` names the operator and its reference; ``constants`` are their arguments after input."""
    relu, inplace = flag(op, "relu", relu), flag(op, "inplace", inplace)
    _check(op, names, input, constants, residual, inplace)
    if residual is not None and residual.dtype != input.dtype:
        residual = _autocast(autocast_dtype(input), input, residual)
    if not use_native_for(input) or transformed() or is_distributed(input):
        if exporting_to_onnx():
            output = _decomposed(op, input, constants, residual, relu)
            return input.copy_(output) if inplace else output
        return getattr(reference, op)(input, *constants, residual, relu, inplace)
    if needs_registered_op():
        if (op == "frozen_batch_norm" and torch.compiler.is_compiling()) or exporting_to_onnx():
            output = _decomposed(op, input, constants, residual, relu)
            return input.copy_(output) if inplace else output
        output, _ = _call(input, constants, residual, relu, inplace=False, need_scale=True)
        # Graphs are functional; the compiler removes the copy where input is an intermediate.
        return input.copy_(output) if inplace else output
    if inplace and input.is_neg():  # torch cannot call an operator in place on a lazily negated tensor
        return input.copy_(_run(op, names, input, constants, residual, relu, False))
    if needs_gradient(input, residual):
        return _FrozenBn.apply(input, residual, constants, relu, inplace)
    output, _ = call_without_graph(_call, input, constants, residual, relu, inplace, False)
    if inplace:
        torch.autograd.graph.increment_version(input)  # a graph may have saved it
    return output


def _decomposed(op, input, constants, residual, relu):
    """The layer made of torch's operators, for compilers, which fuse them with what is around them.

    The exported graph of a plain network has no operator of this package, then. ``frozen_bn_relu``, which callers ask
    for by name, stays whole in all graphs but ONNX's.
    """
    if op == "frozen_batch_norm":
        check_frozen_batch_norm(input, *constants[:4], residual)
        scale, shift = scale_and_shift(*constants, compute_dtype(input))
    else:
        check_frozen_bn_relu(input, *constants, residual)
        scale, shift = (it.to(compute_dtype(input)) for it in constants)
    output = cast(input, scale.dtype) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    if residual is not None:
        output = output + cast(residual, scale.dtype)
    output = cast(output, input.dtype)
    # The same values as with the cast last, but the backward of this ReLU keeps the result, which the next convolution
    # keeps anyway, and not a float32 one.
    return output.relu() if relu else output


def _autocast(dtype, input, residual):
    """Autocast's rule: the residual in input's dtype; input and the constants keep theirs."""
    return residual if dtype is None else cast(residual, input.dtype)


def _check(op, names, input, constants, residual, inplace) -> None:
    """Checks what the compiled operator cannot."""
    check_tensor(op, "input", input)
    for name, constant in zip(names, constants, strict=False):  # without eps, which comes last
        check_tensor(op, name, constant)
        check_needs_no_gradient(op, name, constant)
    check_tensor(op, "residual", residual, optional=True)
    if not inplace:
        return
    # Dynamo cannot trace is_inference; a graph is functional, and torch itself checks the write at its end.
    if not torch.compiler.is_compiling() and input.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"{op}: input is an inference tensor; it must be another one for inplace=True outside inference_mode"
        )
    if input.requires_grad and input.is_leaf and torch.is_grad_enabled():
        # Raised before anything is overwritten; autograd would raise afterwards.
        raise RuntimeError(
            f"{op}: input is a leaf that requires its gradient; it must be another tensor for inplace=True"
        )


def _call(input, constants, residual, relu, inplace, need_scale):
    """The operator for these constants: scale and shift, or four buffers and eps. Returns its result and the scale."""
    from_buffers = len(constants) > 2
    if from_buffers and inplace:
        return input, _LAYER_IN_PLACE(input, *constants, residual, relu, need_scale)
    if from_buffers:
        return _LAYER(input, *constants, residual, relu, need_scale)
    scale, shift = constants
    if inplace:
        _IN_PLACE(input, scale, shift, residual, relu)
        return input, scale
    return _FORWARD(input, scale, shift, residual, relu), scale


class _FrozenBn(torch.autograd.Function):
    """Eager autograd: a third of the Python overhead of the registered operator's.

    Saves the output where there is a ReLU, and nothing else of that size. ``below_wrappers`` skips the registered
    operator's Python kernel, 3.6 us of a call: 7% of a ResNet-50-FPN of 53 norms that takes 2.7 ms on a GPU (batch 1,
    bfloat16).
    """

    @staticmethod
    def forward(ctx, input, residual, constants, relu, inplace):  # a tuple: autograd need not look at its tensors
        output, scale = call_without_graph(_call, input, constants, residual, relu, inplace, True)
        if inplace:
            ctx.mark_dirty(input)
        # The scale of this call: the layer's buffers may be written to before the backward.
        ctx.save_for_backward(scale, output if relu else None)
        return output

    @staticmethod
    def backward(ctx, grad):
        scale, output = ctx.saved_tensors
        need_input, need_residual, *_ = ctx.needs_input_grad
        return *_gradients(grad, scale, output, need_input, need_residual), None, None, None


def _gradients(grad, scale, output, need_input, need_residual):
    """The gradients of input and residual, each None where it is not needed."""
    if transformed() and not needs_registered_op():
        grad_input, grad_residual = _reference_gradients(grad, scale, output)
        return grad_input if need_input else None, grad_residual if need_residual else None
    # Without a ReLU the residual's gradient is grad itself.
    passes_on = need_residual and output is None
    if passes_on and not need_input:
        return None, grad
    need_other = need_residual and not passes_on
    grad_input, grad_residual = call_in_backward(_BACKWARD, grad, scale, output, need_input, need_other)
    if passes_on:
        grad_residual = grad
    elif not need_residual:
        grad_residual = None
    return grad_input if need_input else None, grad_residual


def _reference_gradients(grad, scale, output):
    """The gradients of input and residual by torch's operators: a grad of ``torch.autograd.forward_ad`` has a tangent,
    one of vmap a further dimension."""
    passed = grad if output is None else torch.where(output <= 0, torch.zeros_like(grad), grad)
    return (passed * scale[:, None, None]).to(grad.dtype), passed


def _backward(ctx, grad):
    """Of frozen_bn_relu(input, scale, shift, residual, relu)."""
    need_input, _, _, need_residual, _ = ctx.needs_input_grad
    grad_input, grad_residual = _gradients(grad, *ctx.saved_tensors, need_input, need_residual)
    return grad_input, None, None, grad_residual, None


def _setup_context(ctx, inputs, output):
    _input, scale, shift, _residual, relu = inputs
    _check_constants("frozen_bn_relu", ("scale", "shift"), (scale, shift))
    ctx.save_for_backward(scale, output if relu else None)


def _layer_backward(ctx, grad, _grad_scale):
    """Of frozen_batch_norm(input, *buffers, eps, residual, relu, need_scale) -> (output, scale)."""
    need_input, *_, need_residual, _, _ = ctx.needs_input_grad
    grad_input, grad_residual = _gradients(grad, *ctx.saved_tensors, need_input, need_residual)
    return grad_input, None, None, None, None, None, grad_residual, None, None


def _setup_layer_context(ctx, inputs, output):
    _input, *buffers, _eps, _residual, relu, need_scale = inputs
    output, scale = output
    _check_constants("frozen_batch_norm", _BUFFERS, buffers)
    if not need_scale:
        raise ValueError("frozen_batch_norm: need_scale is False; it must be True where a gradient is needed")
    ctx.mark_non_differentiable(scale)
    ctx.save_for_backward(scale, output if relu else None)


def _check_constants(op, names, constants):
    with torch.enable_grad():  # off in here, but it was on, or this would not run
        for name, constant in zip(names, constants, strict=True):
            check_needs_no_gradient(op, name, constant)


def _setup_backward_context(ctx, inputs, output):
    grad, scale, output, need_input, need_residual = inputs
    ctx.save_for_backward(scale, output)
    ctx.needs, ctx.dtype = (need_input, need_residual), grad.dtype


def _second_gradients(ctx, of_grad_input, of_grad_residual):
    """The derivative of the backward operator: linear in grad, zero for output (ReLU's second derivative)."""
    scale, output = ctx.saved_tensors
    need_input, need_residual = ctx.needs
    second = None
    if need_input:
        second = of_grad_input * scale[:, None, None]
    if need_residual:
        second = of_grad_residual if second is None else second + of_grad_residual
    if second is not None:
        second = second.to(ctx.dtype)
        if output is not None:
            second = torch.where(output <= 0, torch.zeros_like(second), second)
    return second, None, torch.zeros_like(output) if ctx.needs_input_grad[2] else None, None, None


def _fake(input, scale, shift, residual, relu):
    check_frozen_bn_relu(input, scale, shift, residual)
    return _empty_result(input)


def _fake_in_place(input, scale, shift, residual, relu):
    check_frozen_bn_relu(input, scale, shift, residual)


def _fake_layer(input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale):
    scale = _fake_layer_in_place(input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale)
    return _empty_result(input), scale


def _fake_layer_in_place(input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale):
    check_frozen_batch_norm(input, weight, bias, running_mean, running_var, residual)
    return input.new_empty((input.shape[1] if need_scale else 0,), dtype=compute_dtype(input))


def _empty_result(input):
    return torch.empty(input.shape, dtype=input.dtype, device=input.device, memory_format=output_memory_format(input))


def _fake_backward(grad, scale, output, need_input, need_residual):
    check_frozen_bn_backward(grad, scale, output)
    memory_format = output_memory_format(grad if output is None else output)

    def like(needed):
        return torch.empty_like(grad, memory_format=memory_format) if needed else grad.new_empty((0,))

    return like(need_input), like(need_residual)


def _cast_arguments(dtype, input, scale, shift, residual, relu):
    return input, scale, shift, _autocast(dtype, input, residual), relu


def _cast_layer_arguments(dtype, input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale):
    residual = _autocast(dtype, input, residual)
    return input, weight, bias, running_mean, running_var, eps, residual, relu, need_scale


if _extension.CPU_LOADED:
    _FORWARD = torch.ops.resnet_cuda.frozen_bn_relu.default
    _IN_PLACE = torch.ops.resnet_cuda.frozen_bn_relu_.default
    _LAYER = torch.ops.resnet_cuda.frozen_batch_norm.default
    _LAYER_IN_PLACE = torch.ops.resnet_cuda.frozen_batch_norm_.default
    _BACKWARD = torch.ops.resnet_cuda.frozen_bn_relu_backward.default
    register_fake("frozen_bn_relu", _fake)
    register_fake("frozen_bn_relu_", _fake_in_place)
    register_fake("frozen_batch_norm", _fake_layer)
    register_fake("frozen_batch_norm_", _fake_layer_in_place)
    register_fake("frozen_bn_relu_backward", _fake_backward)
    register_autograd("frozen_bn_relu", _backward, _setup_context)
    register_autograd("frozen_batch_norm", _layer_backward, _setup_layer_context)
    register_autograd("frozen_bn_relu_backward", _second_gradients, _setup_backward_context)
    refuse_autograd("frozen_bn_relu_", "resnet_cuda.ops.frozen_bn_relu")
    refuse_autograd("frozen_batch_norm_", "resnet_cuda.layers.FrozenBatchNorm2d")
    register_autocast("frozen_bn_relu", _cast_arguments)
    register_autocast("frozen_bn_relu_", _cast_arguments)
    register_autocast("frozen_batch_norm", _cast_layer_arguments)
    register_autocast("frozen_batch_norm_", _cast_layer_arguments)
