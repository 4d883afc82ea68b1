"""Random small and odd calls of the operators, each with its float64 reference."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.measure import relative_error
from resnet_cuda import ops, reference
from resnet_cuda.ops import frozen_bn

# Of the largest value. 16-bit results may be off by their own rounding and by that of the columns between the products.
UNITS = {torch.float64: 64, torch.float32: 64, torch.float16: 4, torch.bfloat16: 4}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass
class Problem:
    """A call on float64 arguments that the tested dtype holds exactly, and the names of those to differentiate for."""

    name: str
    dtype: torch.dtype
    arguments: dict[str, Tensor | None]
    options: dict[str, object]
    wanted: list[str]
    function: Callable
    reference: Callable
    channels_last: bool

    def __str__(self) -> str:
        return f"{self.name}, {str(self.dtype).removeprefix('torch.')}, channels_last {self.channels_last}"


def _deform_conv(rng: random.Random, dtype: torch.dtype, generator: torch.Generator) -> Problem:
    groups, offset_groups = rng.choice(((1, 1), (1, 1), (2, 1), (1, 2), (2, 4), (3, 1)))
    channels = math.lcm(groups, offset_groups) * rng.choice((1, 3, 5, 8, 16))
    kernel = rng.choice(((3, 3), (3, 3), (1, 1), (5, 3), (2, 4)))
    stride, dilation = (rng.choice((1, 1, 2)), rng.choice((1, 1, 3))), (rng.choice((1, 1, 2)), 1)
    padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    size = [rng.randint(1, most * s) for most, s in zip((23, 29), stride, strict=True)]
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    batch, taps, out_channels = rng.choice((1, 2, 3)), kernel[0] * kernel[1], groups * rng.choice((1, 3, 8, 17, 32))

    def normal(*shape: int) -> Tensor:  # as the dtype holds it
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).double()

    # Odd sixteenths: exact in every dtype and never a whole number, where the derivative jumps.
    spread = rng.choice((16, 48))
    offset = torch.randint(-spread, spread, (batch, 2 * offset_groups * taps, *out), generator=generator)
    arguments = {
        "input": normal(batch, channels, *size),
        "offset": (2 * offset + 1).double() / 16,
        "weight": normal(out_channels, channels // groups, *kernel),
        "bias": normal(out_channels) if rng.random() < 0.5 else None,
        "mask": normal(batch, offset_groups * taps, *out).abs() if rng.random() < 0.75 else None,
        "grad": normal(batch, out_channels, *out),
    }
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    shapes = f"{tuple(arguments['input'].shape)} x {tuple(arguments['weight'].shape)}"
    name = f"deform_conv2d {shapes}, {options}, {offset_groups} offset groups"
    wanted = [key for key, value in arguments.items() if value is not None and key != "grad"]
    functions = (ops.deform_conv2d, reference.deform_conv2d)
    return Problem(name, dtype, arguments, options, wanted, *functions, rng.random() < 0.5)


def _frozen_bn(rng: random.Random, dtype: torch.dtype, generator: torch.Generator, of_layer: bool) -> Problem:
    """From scale and shift or, ``of_layer``, from the four buffers of a FrozenBatchNorm2d."""
    shape = (rng.choice((1, 2, 3)), rng.choice((1, 3, 8, 17, 64)), rng.randint(1, 33), rng.randint(1, 33))

    def eighths(*size: int) -> Tensor:
        # Sums and products of such numbers are exact in float32: rounding cannot decide what the ReLU lets through.
        return torch.randint(-16, 17, size, generator=generator).double() / 8

    options, scale, shift = {"relu": rng.random() < 0.75}, eighths(shape[1]), eighths(shape[1])
    constants, operator = {"scale": scale, "shift": shift}, "frozen_bn_relu"
    functions = (ops.frozen_bn_relu, reference.frozen_bn_relu)
    if of_layer:
        # The inverse square root may round: 1/256 keeps every sum, a multiple of 1/128, away from 0.
        variance = 4.0 ** torch.randint(-1, 2, (shape[1],), generator=generator).double()
        constants = {
            "weight": scale,
            "bias": shift + 1 / 256,
            "running_mean": eighths(shape[1]),
            "running_var": variance,
        }
        options["eps"], operator = 0.0, "frozen_batch_norm"
        functions = (frozen_bn.frozen_batch_norm, reference.frozen_batch_norm)
    residual = eighths(*shape) if rng.random() < 0.5 else None
    arguments = {"input": eighths(*shape), **constants, "residual": residual, "grad": eighths(*shape)}
    wanted = ["input"] if residual is None else ["input", "residual"]
    name = f"{operator} {shape}, residual {residual is not None}, {options}"
    return Problem(name, dtype, arguments, options, wanted, *functions, rng.random() < 0.5)


def problems(count: int, seed: int, dtypes: Sequence[torch.dtype] = DTYPES) -> Sequence[Problem]:
    """Two deformable convolutions to one norm, every other norm a layer's; dtypes in turn."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    return [
        _frozen_bn(rng, dtypes[index % len(dtypes)], generator, of_layer=index % 6 == 5)
        if index % 3 == 2
        else _deform_conv(rng, dtypes[index % len(dtypes)], generator)
        for index in range(count)
    ]


def run_problem(problem: Problem, function: Callable, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradients that are wanted."""
    constants = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {}
    for name, value in problem.arguments.items():
        if value is not None:
            leaf = value.to(device, constants if value.dim() == 1 and name not in problem.wanted else dtype)
            if problem.channels_last and leaf.dim() == 4:
                leaf = leaf.contiguous(memory_format=torch.channels_last)
            leaves[name] = leaf.detach().requires_grad_(name in problem.wanted)
    grad = leaves.pop("grad").detach()
    output = function(**leaves, **problem.options)
    return [output.detach(), *torch.autograd.grad(output, [leaves[name] for name in problem.wanted], grad)]


def poison(device: torch.device) -> None:
    """Leaves NaN in the memory that the allocator hands out next: an element that nobody writes then shows."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    sizes = (1 << 22, *[1 << 17] * 16, *[1 << 12] * 64)
    blocks = [torch.full((size,), float("nan"), device=device) for size in sizes]
    del blocks


def verify(problem: Problem, device: torch.device, runs: int = 2) -> dict[str, object]:
    """The largest error in units of the dtype's spacing, and whether all runs gave the same bits.

    Several runs are made, on memory that was filled with NaN before.
    """
    expected = run_problem(problem, problem.reference, torch.device("cpu"), torch.float64)
    results = []
    for _ in range(runs):
        if runs > 1:
            poison(device)
        results.append(run_problem(problem, problem.function, device, problem.dtype))
    eps, labels = torch.finfo(problem.dtype).eps, ("output", *problem.wanted)
    pairs = zip(labels, results[0], expected, strict=True)
    units = {label: relative_error(got.cpu(), right) / eps for label, got, right in pairs}
    same = all(torch.equal(a, b) for a, b in zip(results[0], results[-1], strict=True))  # NaN is never equal
    worst = max(units, key=units.get)
    right = units[worst] <= UNITS[problem.dtype]
    return {"right": right, "same_twice": same, "worst": worst, "units": round(units[worst], 3)}
