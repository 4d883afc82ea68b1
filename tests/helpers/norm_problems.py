"""Arguments for frozen_bn_relu and the runs that the comparison needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from helpers.cases import NormCase
from helpers.problems import Arguments, Run, assert_run_close, run
from torch import Tensor

from resnet_cuda import reference


def norm_arguments(
    case: NormCase, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0, exact: bool = False
) -> Arguments:
    """input, scale, shift (float32; float64 beside float64), residual and the output's gradient as ``grad``.

    Before the ReLU no value is near 0, where rounding alone would decide which gradient is right. With ``exact`` all
    are small multiples of 1/8 or 1/4 instead, whose sums and products are exact in float32: many results are then 0.
    """
    generator = torch.Generator().manual_seed(seed)
    channels = case.shape[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def eighths(*shape: int) -> Tensor:
        return torch.randint(-16, 17, shape, generator=generator).double() / 8

    draw = eighths if exact else normal
    constant_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    # As stored, so that the values away from 0 are chosen with the very numbers that the operator gets.
    input = draw(*case.shape).to(dtype).double()
    scale = (2 * draw(channels) if exact else draw(channels).sign() * (0.5 + draw(channels).abs())).to(constant_dtype)
    shift = draw(channels).to(constant_dtype)
    residual = draw(*case.shape).to(dtype).double() if case.residual else None
    if not exact:
        for _ in range(8):
            before_relu = input * scale.double()[:, None, None] + shift.double()[:, None, None]
            before_relu = before_relu + residual if case.residual else before_relu
            near = before_relu.abs() < 0.1
            input = torch.where(near, input + 0.5, input).to(dtype).double()
        assert not near.any()
    return {
        "input": input.to(device, dtype),
        "scale": scale.to(device),
        "shift": shift.to(device),
        "residual": residual.to(device, dtype) if case.residual else None,
        "grad": draw(*case.shape).to(device, dtype),
    }


def norm_run(function: Callable, arguments: Arguments, **options: object) -> Run:
    """Forward and backward of ``function``, with the gradients for input and residual."""
    return run(function, arguments, wanted_gradients(arguments), **options)


def wanted_gradients(arguments: Arguments) -> list[str]:
    return [name for name in ("input", "residual") if arguments[name] is not None]


def reordered_frozen_bn_relu(
    input: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None = None, relu: bool = True
) -> Tensor:
    """The same function, summed from the other end."""
    compute = torch.float64 if input.dtype == torch.float64 else torch.float32
    added = shift.to(compute)[:, None, None]
    if residual is not None:
        added = residual.to(compute) + added
    output = added + scale.to(compute)[:, None, None] * input.to(compute)
    return (output.clamp_min(0) if relu else output).to(input.dtype)


def assert_norm_run_close(got: Run, arguments: Arguments, case: NormCase, **options: object) -> float:
    """:func:`helpers.problems.assert_run_close` for frozen_bn_relu."""
    return assert_run_close(
        got,
        arguments,
        reference.frozen_bn_relu,
        (reference.frozen_bn_relu, reordered_frozen_bn_relu),
        wanted=wanted_gradients(arguments),
        relu=case.relu,
        **options,
    )
