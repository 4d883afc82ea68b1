"""What the GPU tests share. All of it takes a device, so that ``test_gpu.py`` beside it can run it on a CPU."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from helpers.problems import Arguments, Run, run
from helpers.shared import locked
from torch import Tensor

from resnet_cuda import ops, reference

NEEDS_GPU = [pytest.mark.cuda, pytest.mark.usefixtures("native")]
# Channels and image of a ResNet's 3x3 layers at 800x1344.
STAGES = {"C3": (128, 100, 168), "C4": (256, 50, 84), "C5": (512, 25, 42)}
PADDED = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}


@contextlib.contextmanager
def one_process_at_a_time(name: str) -> Iterator[None]:
    """Waits until no other test process of this user is in a block of this name (one that fills a GPU, say)."""
    user = os.getuid() if hasattr(os, "getuid") else ""  # not on Windows
    with locked(Path(tempfile.gettempdir()) / f"resnet_cuda-{user}-{name}.lock"):
        yield


def layer_arguments(
    shape: tuple[int, int, int], batch: int, dtype: torch.dtype, device: torch.device | str, channels_last: bool = True
) -> Arguments:
    """A 3x3 layer, v2, with ``shape`` (C, H, W) in and out. Offsets are odd multiples of 1/16: never whole numbers."""
    channels, height, width = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int, factor: float = 1.0) -> Tensor:
        return (torch.randn(size, generator=generator, device=device) * factor).to(dtype)

    sixteenths = torch.randint(-32, 32, (batch, 18, height, width), generator=generator, device=device)
    arguments = {
        "input": normal(batch, channels, height, width),
        "offset": ((2 * sixteenths + 1) / 16).to(dtype),
        "weight": normal(channels, channels, 3, 3, factor=(9 * channels) ** -0.5),
        "bias": normal(channels),
        "mask": normal(batch, 9, height, width).sigmoid(),
        "grad": normal(batch, channels, height, width),
    }
    if channels_last:
        for name in ("input", "offset", "mask", "grad"):
            arguments[name] = arguments[name].contiguous(memory_format=torch.channels_last)
    return arguments


def collapsed(arguments: Arguments) -> Arguments:
    """All taps of all pixels near one place: the input's gradient goes to a few pixels, each with a long input list."""
    height, width = arguments["input"].shape[2:]
    device, dtype = arguments["offset"].device, arguments["offset"].dtype
    rows = height // 2 + 0.5 - torch.arange(height, device=device).reshape(-1, 1).expand(height, width)
    columns = width // 2 + 0.5 - torch.arange(width, device=device).expand(height, width)
    tap = torch.arange(9, device=device)
    offset = torch.stack((rows - (tap // 3 - 1).reshape(-1, 1, 1), columns - (tap % 3 - 1).reshape(-1, 1, 1)), dim=1)
    offset = offset.flatten(0, 1).to(dtype).expand_as(arguments["offset"])
    return arguments | {"offset": offset.contiguous(memory_format=torch.channels_last)}


def deform_run(arguments: Arguments) -> Run:
    return run(ops.deform_conv2d, arguments, **PADDED)


def block_run(arguments: Arguments, residual: Tensor) -> Run:
    """deform_conv2d and the norm behind it, in place, forward and backward."""

    def block(**tensors: Tensor) -> Tensor:
        shift = torch.full((tensors["weight"].shape[0],), 0.25, device=residual.device)
        convolved = ops.deform_conv2d(**tensors, **PADDED)
        return ops.frozen_bn_relu(convolved, torch.ones_like(shift), shift, residual, inplace=True)

    return run(block, arguments)


def assert_runs_equal(got: Run, expected: Run) -> None:
    """Output and gradients, every bit; and there is something to compare."""
    assert expected.output.isfinite().all()
    assert expected.output.any()
    assert torch.equal(got.output, expected.output), "output"
    for name, gradient in expected.gradients.items():
        assert gradient.any(), name
        assert torch.equal(got.gradients[name], gradient), name


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).abs().max() / expected.double().abs().max())


def torchvision_run(arguments: Arguments) -> Run:
    """:func:`deform_run` of torchvision's operator."""
    from torchvision.ops import deform_conv2d

    return run(deform_conv2d, arguments, **PADDED)


def errors(got: Run, expected: Run) -> dict[str, float]:
    found = {name: relative_error(got.gradients[name], gradient) for name, gradient in expected.gradients.items()}
    return found | {"output": relative_error(got.output, expected.output)}


def extra_bytes(call: Callable[[], Sequence[Tensor]], device: torch.device | str = "cuda") -> int:
    """What one call holds at its highest beyond what was held before and what it returns."""
    returned = sum(result.nbytes for result in call())  # the first call leaves workspaces behind
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    results = call()
    torch.cuda.synchronize(device)
    del results
    return torch.cuda.max_memory_allocated(device) - before - returned


def check_large_norm(shape: tuple[int, int, int, int], memory_format: torch.memory_format, device: str) -> None:
    """bfloat16, with residual, forward, in place and backward, compared with the reference on rows of every image."""
    images, channels, height, _ = shape

    def activation() -> Tensor:
        return torch.empty(shape, dtype=torch.bfloat16, device=device, memory_format=memory_format).normal_()

    input, residual = activation(), activation()
    scale, shift = torch.rand(channels, device=device) + 0.5, torch.randn(channels, device=device)
    places = [(image, row) for image in range(images) for row in (0, height // 2, height - 1)]

    def rows(tensor: Tensor) -> list[Tensor]:
        return [tensor[image : image + 1, :, row : row + 1].clone() for image, row in places]

    input_rows, residual_rows = rows(input), rows(residual)
    expected = [
        reference.frozen_bn_relu(one, scale, shift, other) for one, other in zip(input_rows, residual_rows, strict=True)
    ]
    assert all(one.any() for one in expected)
    arguments = (scale, shift, residual, True)
    output = torch.ops.resnet_cuda.frozen_bn_relu(input, *arguments)
    for got, right, place in zip(rows(output), expected, places, strict=True):
        torch.testing.assert_close(got, right, rtol=2**-8, atol=2**-8, msg=lambda text, at=place: f"{at}: {text}")
    torch.ops.resnet_cuda.frozen_bn_relu_(input, *arguments)
    assert torch.equal(input, output), "in place"
    del input, residual

    grad = activation()
    grad_input, grad_residual = torch.ops.resnet_cuda.frozen_bn_relu_backward(grad, scale, output, True, True)
    for got, got_residual, incoming, result in zip(*map(rows, (grad_input, grad_residual, grad, output)), strict=True):
        passed = torch.where(result > 0, incoming, 0)
        assert torch.equal(got_residual, passed)
        assert torch.equal(got, (passed.float() * scale[:, None, None]).to(got.dtype))


def check_large_deform_conv(batch: int, channels: int, size: tuple[int, int], device: str) -> None:
    """bfloat16, v1, 8 output channels: output and gradients of a few images are those of these images by themselves."""
    memory = {"dtype": torch.bfloat16, "device": device}
    input = torch.empty(batch, channels, *size, **memory, memory_format=torch.channels_last).normal_()
    # Odd sixteenths up to 4 pixels, made image by image: in int64 all of them at once would be four times as large.
    offset = torch.empty(batch, 18, *size, **memory, memory_format=torch.channels_last)
    for image in offset.split(64):
        image.copy_((2 * torch.randint(-32, 32, image.shape, device=device) + 1) / 16)
    weight = torch.randn(8, channels, 3, 3, **memory) / (9 * channels) ** 0.5
    grad = torch.empty(batch, 8, *size, **memory, memory_format=torch.channels_last).normal_()
    geometry = (1, 1, 1, 1, 1, 1)
    needs = (True, False, True, False, False)

    def gradients(*images: Tensor) -> tuple[Tensor, ...]:
        found = torch.ops.resnet_cuda.deform_conv2d_backward(
            images[0], images[1], weight, images[2], None, *geometry, *needs
        )
        return found[0], found[2]

    output = torch.ops.resnet_cuda.deform_conv2d(input, weight, offset, None, None, *geometry)
    grad_input, grad_offset = gradients(grad, input, offset)
    for image in (0, batch // 2, batch - 2, batch - 1):
        one = slice(image, image + 1)
        alone = torch.ops.resnet_cuda.deform_conv2d(input[one], weight, offset[one], None, None, *geometry)
        alone_input, alone_offset = gradients(grad[one], input[one], offset[one])
        pairs = {"output": (output, alone), "input": (grad_input, alone_input), "offset": (grad_offset, alone_offset)}
        for name, (whole, right) in pairs.items():
            assert right.any(), name
            error = relative_error(whole[one], right)
            assert error <= 2 * torch.finfo(torch.bfloat16).eps, f"{name} of image {image} is off by {error:.3g}"
