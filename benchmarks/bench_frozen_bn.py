"""FrozenBatchNorm + residual + ReLU compared with torchvision's layer and with copies.

Each variant is compared with two copies. The baseline copies as many bytes as the variant moves, and allocates its
result if the variant does. The machine's copy bandwidth is measured with a copy larger than any cache, before the first
turn of a case and before every fifth one after it, since the bandwidth of a shared machine changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.cases import FROZEN_BN, QUICK_FROZEN_BN
from benchmarks.measure import CopyBandwidth, check_agreement, compare
from benchmarks.results import OURS, Row, Settings, Traffic
from resnet_cuda import ops

FLOOR = "copy of the same bytes"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-12}


def run(settings: Settings) -> Iterator[Callable[[], Row]]:
    """One measurement per case, variant, dtype and layout, each to be called."""
    dtypes = dict.fromkeys((settings.dtype, torch.bfloat16))
    bandwidth = CopyBandwidth(settings.device)
    for name, size in FROZEN_BN.items():
        if settings.quick and name not in QUICK_FROZEN_BN:
            continue
        for dtype in dtypes:
            for memory_format in (torch.contiguous_format, torch.channels_last):
                for variant in VARIANTS:
                    yield lambda arguments=(name, size, variant, dtype, memory_format): _row(
                        *arguments, settings, bandwidth
                    )


def _eager(input: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, relu: bool = True) -> Tensor:
    """What torchvision's FrozenBatchNorm2d, the residual sum and ReLU(inplace=True) do, constants already at hand."""
    output = input * scale.reshape(1, -1, 1, 1).to(input.dtype) + shift.reshape(1, -1, 1, 1).to(input.dtype)
    if residual is not None:
        output += residual
    return output.relu_() if relu else output


def _copy(source: Tensor, reads: int, writes: int, allocates: bool) -> Callable[[], Tensor]:
    """Copies (reads + writes) / 2 times the bytes of ``source``."""
    elements = source.numel() * (reads + writes) // 2
    origin = torch.zeros(elements, dtype=source.dtype, device=source.device)
    if allocates:
        return origin.clone
    target = torch.zeros_like(origin)
    return lambda: target.copy_(origin)


def _forward_in_place(input, scale, shift, residual, grad):
    # With scale 1, shift 0 and no negative values the result is the input: every repeat sees the same numbers.
    values, one, zero = input.abs(), torch.ones_like(scale), torch.zeros_like(shift)
    return {
        OURS: lambda: ops.frozen_bn_relu(values, one, zero, None, True, True),
        "eager": lambda: (
            values.mul_(one.reshape(1, -1, 1, 1).to(values.dtype))
            .add_(zero.reshape(1, -1, 1, 1).to(values.dtype))
            .relu_()
        ),
        FLOOR: _copy(input, 1, 1, False),
    }


def _forward_residual_in_place(input, scale, shift, residual, grad):
    values, one, zero, nothing = (
        input.abs(),
        torch.ones_like(scale),
        torch.zeros_like(shift),
        torch.zeros_like(residual),
    )
    return {
        OURS: lambda: ops.frozen_bn_relu(values, one, zero, nothing, True, True),
        "eager": lambda: (
            values.mul_(one.reshape(1, -1, 1, 1).to(values.dtype))
            .add_(zero.reshape(1, -1, 1, 1).to(values.dtype))
            .add_(nothing)
            .relu_()
        ),
        FLOOR: _copy(input, 2, 1, False),
    }


def _forward(input, scale, shift, residual, grad):
    return {
        OURS: lambda: ops.frozen_bn_relu(input, scale, shift),
        "eager": lambda: _eager(input, scale, shift, None),
        FLOOR: _copy(input, 1, 1, True),
    }


def _backward(input, scale, shift, residual, grad):
    # A scale of 2 and no shift keep every sign, so that rounding in between cannot decide what the ReLU lets through.
    scale, shift = torch.full_like(scale, 2), torch.zeros_like(shift)
    leaf = input.detach().requires_grad_()
    own, eager = ops.frozen_bn_relu(leaf, scale, shift), _eager(leaf, scale, shift, None)
    return {
        OURS: lambda: torch.autograd.grad(own, leaf, grad, retain_graph=True)[0],
        "eager": lambda: torch.autograd.grad(eager, leaf, grad, retain_graph=True)[0],
        FLOOR: _copy(input, 2, 1, True),
    }


def _forward_residual(input, scale, shift, residual, grad):
    return {
        OURS: lambda: ops.frozen_bn_relu(input, scale, shift, residual),
        "eager": lambda: _eager(input, scale, shift, residual),
        FLOOR: _copy(input, 2, 1, True),
    }


def _backward_residual(input, scale, shift, residual, grad):
    scale, shift = torch.full_like(scale, 2), torch.zeros_like(shift)
    leaves = input.detach().requires_grad_(), residual.detach().requires_grad_()
    own, eager = ops.frozen_bn_relu(leaves[0], scale, shift, leaves[1]), _eager(leaves[0], scale, shift, leaves[1])
    return {
        OURS: lambda: torch.autograd.grad(own, leaves, grad, retain_graph=True),
        "eager": lambda: torch.autograd.grad(eager, leaves, grad, retain_graph=True),
        FLOOR: _copy(input, 2, 2, True),
    }


VARIANTS: dict[str, Callable] = {
    "in place": _forward_in_place,
    "in place with residual": _forward_residual_in_place,
    "forward": _forward,
    "backward": _backward,
}
# The GPU run measures these too.
MORE_VARIANTS: dict[str, Callable] = {
    "forward with residual": _forward_residual,
    "backward with residual": _backward_residual,
}

# How many tensors of the activation's size each reads and writes.
TENSORS = {
    "in place": 2,
    "in place with residual": 3,
    "forward": 2,
    "backward": 3,
    "forward with residual": 3,
    "backward with residual": 4,
}


def prepare(
    size: tuple[int, ...],
    variant: str,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    device: torch.device,
    seed: int = 0,
) -> dict[str, Callable]:
    """The calls of a variant's candidates on random activations of ``size``, made on ``device``."""
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    def activation() -> Tensor:
        return random(*size).to(dtype).contiguous(memory_format=memory_format)

    input, residual, grad = activation(), activation(), activation()
    scale, shift = random(size[1]).abs() + 0.5, random(size[1])
    return (VARIANTS | MORE_VARIANTS)[variant](input, scale, shift, residual, grad)


def bytes_moved(size: tuple[int, ...], variant: str, dtype: torch.dtype) -> int:
    """What a variant reads and writes."""
    return TENSORS[variant] * torch.Size(size).numel() * dtype.itemsize


def _row(
    name: str,
    size: tuple[int, ...],
    variant: str,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    settings: Settings,
    bandwidth: CopyBandwidth,
) -> Row:
    candidates = prepare(size, variant, dtype, memory_format, settings.device)
    layout = "channels_last" if memory_format == torch.channels_last else "contiguous"
    case = f"{name}, {variant}, {str(dtype).removeprefix('torch.')}, {layout}"
    check_agreement(case, "eager", candidates["eager"](), candidates[OURS](), TOLERANCE[dtype])
    bandwidth.start()
    timings = compare(
        candidates, settings.device, settings.repeats, settings.budget_seconds, interlude=bandwidth.sample
    )
    traffic = Traffic(bytes_moved(size, variant, dtype), bandwidth.bytes_per_second)
    return Row("frozen_bn_relu", case, timings, FLOOR, traffic=traffic)
