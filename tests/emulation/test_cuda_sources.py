"""The CUDA kernels' bodies and host code, run on the CPU, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from resnet_cuda import reference

# Tolerance relative to the largest magnitude. 16-bit columns are rounded once more than the reference rounds.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
DTYPES = tuple(TOLERANCE)

# name: N, C, O, H, W, kernel, stride, padding, dilation, groups, offset groups, mask
CASES = {
    "plain": (2, 8, 6, 7, 9, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True),
    "v1": (2, 8, 6, 7, 9, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, False),
    "groups": (3, 12, 8, 6, 5, (3, 3), (1, 1), (1, 1), (1, 1), 4, 3, True),
    "depthwise": (1, 7, 7, 6, 5, (3, 3), (1, 1), (1, 1), (1, 1), 7, 1, True),
    "many_chunks": (2, 40, 33, 17, 13, (3, 3), (1, 1), (1, 1), (1, 1), 1, 2, True),
    "axes_differ": (1, 5, 3, 11, 9, (5, 2), (2, 1), (2, 0), (1, 2), 1, 1, True),
    "one_by_one": (2, 3, 4, 5, 4, (1, 1), (2, 2), (0, 0), (1, 1), 1, 3, True),
    "one_pixel": (1, 1, 1, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True),
}


def make(name: str, dtype: torch.dtype, channels_last: bool):
    batch, channels, outputs, height, width, kernel, stride, padding, dilation, groups, offset_groups, masked = CASES[
        name
    ]
    generator = torch.Generator().manual_seed(7)
    size = [
        (length + 2 * pad - step * (taps - 1) - 1) // jump + 1
        for length, pad, step, taps, jump in zip((height, width), padding, dilation, kernel, stride, strict=True)
    ]
    taps = kernel[0] * kernel[1]

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    input = random(batch, channels, height, width)
    if channels_last:
        input = input.contiguous(memory_format=torch.channels_last)
    weight = random(outputs, channels // groups, *kernel)
    offset = 2 * random(batch, 2 * offset_groups * taps, *size)
    mask = random(batch, offset_groups * taps, *size) if masked else None
    return (input, weight, offset, mask, random(outputs)), (*stride, *padding, *dilation)


def truth(tensors, geometry):
    """Output and gradients of the reference in float64, and the output's gradient used."""
    leaves = [None if t is None else t.double().detach().requires_grad_() for t in tensors]
    input, weight, offset, mask, bias = leaves
    output = reference.deform_conv2d(input, offset, weight, bias, geometry[:2], geometry[2:4], geometry[4:], mask)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    grad = grad.to(tensors[0].dtype)
    wanted = [leaf for leaf in leaves if leaf is not None]
    gradients = iter(torch.autograd.grad(output, wanted, grad.double()))
    return output.detach(), [None if leaf is None else next(gradients) for leaf in leaves], grad


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0
    error = (actual.double() - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE[dtype], f"relative error {error:.2e}"


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_deform_conv2d(emulated, name, dtype, channels_last):
    tensors, geometry = make(name, dtype, channels_last)
    expected, gradients, grad = truth(tensors, geometry)
    assert_near(emulated.deform_conv2d(*tensors, *geometry), expected, dtype)
    needs = [t is not None for t in tensors]
    actual = emulated.deform_conv2d_backward(grad, *tensors[:4], *geometry, *needs)
    for got, wanted in zip(actual, gradients, strict=True):
        if wanted is None:
            assert got.shape == (0,)
        else:
            assert_near(got, wanted, dtype)


@pytest.mark.parametrize("asked", range(5))
def test_only_the_gradient_asked_for(emulated, asked):
    tensors, geometry = make("groups", torch.float64, False)
    _, gradients, grad = truth(tensors, geometry)
    needs = [index == asked for index in range(5)]
    actual = emulated.deform_conv2d_backward(grad, *tensors[:4], *geometry, *needs)
    for index, got in enumerate(actual):
        if index == asked:
            assert_near(got, gradients[index], torch.float64)
        else:
            assert got.shape == (0,)


def test_positions_that_are_no_number_or_outside(emulated):
    (input, weight, offset, mask, bias), geometry = make("plain", torch.float32, False)
    offset[0, 0, 0, 0] = float("nan")
    offset[0, 1, 2, 3] = float("inf")
    offset[1, 2, 3, 4] = -1e30
    expected = reference.deform_conv2d(input, offset, weight, bias, (1, 1), (1, 1), (1, 1), mask)
    actual = emulated.deform_conv2d(input, weight, offset, mask, bias, *geometry)
    torch.testing.assert_close(actual, expected, equal_nan=True, rtol=1e-4, atol=1e-4)
    is_nan = actual.isnan()
    assert is_nan[0, :, 0, 0].all()
    assert is_nan.sum() == weight.shape[0]
    gradients = emulated.deform_conv2d_backward(
        torch.ones_like(actual), input, weight, offset, mask, *geometry, *[True] * 5
    )
    assert gradients[0].isfinite().all()
    assert gradients[2][0, :2, 0, 0].isnan().all()
    assert gradients[2].isnan().sum() == 2
    assert gradients[3].isnan().sum() == 1
