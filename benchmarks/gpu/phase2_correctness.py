"""Phase 2: random small and odd shapes against the float64 reference, twice, bit by bit; large ones against torchvision."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu import names
from benchmarks.gpu.context import Context
from benchmarks.gpu.layers import layer, make_sets
from benchmarks.gpu.side_by_side import errors, truth
from benchmarks.gpu.variants import VARIANTS, candidate, tf32
from benchmarks.measure import relative_error
from resnet_cuda import ops, reference
from resnet_cuda.ops import frozen_bn

SHAPES, QUICK_SHAPES = 40, 4
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
    wanted: tuple[str, ...]
    function: Callable
    reference: Callable
    channels_last: bool


def _deform_conv(rng: random.Random, dtype: torch.dtype, generator: torch.Generator) -> Problem:
    groups, offset_groups = rng.choice(((1, 1), (1, 1), (2, 1), (1, 2), (2, 4), (3, 1)))
    step = groups * offset_groups if groups * offset_groups < 8 else 4
    channels = step * rng.choice((1, 3, 5, 8, 16))
    out_channels = groups * rng.choice((1, 3, 8, 17, 32))
    kernel = rng.choice(((3, 3), (3, 3), (1, 1), (5, 3), (2, 4)))
    stride, dilation = (rng.choice((1, 1, 2)), rng.choice((1, 1, 3))), (rng.choice((1, 1, 2)), 1)
    padding = tuple(dilation[axis] * (kernel[axis] // 2) for axis in (0, 1))
    out = (rng.randint(1, 23), rng.randint(1, 29))
    # The smallest image that gives this output; a further row or column that no stride reaches now and then.
    size = [
        max(1, (out[a] - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 - 2 * padding[a] + rng.randrange(stride[a]))
        for a in (0, 1)
    ]
    out = [(size[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)]
    batch, taps = rng.choice((1, 2, 3)), kernel[0] * kernel[1]

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
    wanted = tuple(key for key in ("input", "offset", "weight", "bias", "mask") if arguments[key] is not None)
    return Problem(
        name, dtype, arguments, options, wanted, ops.deform_conv2d, reference.deform_conv2d, rng.random() < 0.5
    )


def _frozen_bn(rng: random.Random, dtype: torch.dtype, generator: torch.Generator, of_layer: bool) -> Problem:
    """From scale and shift or, ``of_layer``, from the four buffers of a FrozenBatchNorm2d."""
    shape = (rng.choice((1, 2, 3)), rng.choice((1, 3, 8, 17, 64)), rng.randint(1, 33), rng.randint(1, 33))

    def eighths(*size: int) -> Tensor:
        return torch.randint(-16, 17, size, generator=generator).double() / 8

    # Sums and products of such numbers are exact in float32: rounding cannot decide what the ReLU lets through.
    residual = rng.random() < 0.5
    options = {"relu": rng.random() < 0.75}
    if of_layer:
        # The inverse square root may round: 1/256 keeps every sum, a multiple of 1/128, away from 0.
        constants = {
            "weight": eighths(shape[1]),
            "bias": eighths(shape[1]) + 1 / 256,
            "running_mean": eighths(shape[1]),
            "running_var": 4.0 ** torch.randint(-1, 2, (shape[1],), generator=generator).double(),
        }
        options["eps"] = 0.0
    else:
        constants = {"scale": eighths(shape[1]), "shift": eighths(shape[1])}
    arguments = {
        "input": eighths(*shape),
        **constants,
        "residual": eighths(*shape) if residual else None,
        "grad": eighths(*shape),
    }
    wanted = ("input", "residual") if residual else ("input",)
    if of_layer:
        operator, functions = "frozen_batch_norm", (frozen_bn.frozen_batch_norm, reference.frozen_batch_norm)
    else:
        operator, functions = "frozen_bn_relu", (ops.frozen_bn_relu, reference.frozen_bn_relu)
    name = f"{operator} {shape}, residual {residual}, {options}"
    return Problem(name, dtype, arguments, options, wanted, *functions, rng.random() < 0.5)


def run_problem(problem: Problem, function: Callable, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """The output and the gradients that are wanted."""
    constants = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {}
    for name, value in problem.arguments.items():
        if value is None:
            continue
        is_constant = value.dim() == 1 and name not in problem.wanted
        leaf = value.to(device, constants if is_constant else dtype)
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
    blocks = [
        torch.full((count,), float("nan"), device=device) for count in (1 << 22, *[1 << 17] * 16, *[1 << 12] * 64)
    ]
    del blocks


def check(context: Context, problem: Problem) -> None:
    """One record: the worst error in units of the dtype's spacing, and whether two runs were the same to the last bit."""
    expected = run_problem(problem, problem.reference, torch.device("cpu"), torch.float64)
    poison(context.device)
    first = run_problem(problem, problem.function, context.device, problem.dtype)
    poison(context.device)
    second = run_problem(problem, problem.function, context.device, problem.dtype)
    labels = ("output", *problem.wanted)
    eps = torch.finfo(problem.dtype).eps
    units = {
        label: relative_error(got.cpu(), right) / eps for label, got, right in zip(labels, first, expected, strict=True)
    }
    same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # NaN is never equal: it fails here too
    right = all(error <= UNITS[problem.dtype] for error in units.values())
    worst = max(units, key=units.get)
    name = f"{problem.name}, {str(problem.dtype).removeprefix('torch.')}, channels_last {problem.channels_last}"
    context.write("check", item=name, right=right, same_twice=same, worst=worst, units=round(units[worst], 3))
    if not (right and same):
        context.failures.append(f"{name}: {worst} off by {units[worst]:.3g} units, same twice: {same}")


def problems(count: int, seed: int = 1) -> Sequence[Problem]:
    """Two deformable convolutions to one norm, every other norm a layer's."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found = []
    for index in range(count):
        dtype = DTYPES[index % len(DTYPES)]
        if index % 3 == 2:
            found.append(_frozen_bn(rng, dtype, generator, of_layer=index % 6 == 5))
        else:
            found.append(_deform_conv(rng, dtype, generator))
    return found


def check_large(context: Context, stage: str) -> None:
    """Ours in float32 against torchvision's, and both against float64 on the first image: which is nearer?"""
    one = layer(stage, 2, context.quick)
    sets = make_sets(one, context.device, 1)
    expected = truth(context, sets)
    for direction, right in expected.items():
        ours = candidate(VARIANTS[names.OURS_FLOAT32], sets, direction)
        with tf32(False):
            off_by = errors(ours.calls[0](), right)
        fine = all(error <= 1e-3 for error in off_by.values())
        item = f"{one}, {direction}, against torchvision float32"
        context.write("check", item=item, right=fine, error={key: float(f"{e:.3g}") for key, e in off_by.items()})
        if not fine:
            context.failures.append(f"{item}: {off_by}")
    with tf32(False), torch.no_grad():
        first = sets[0]
        exact = reference.deform_conv2d(
            *(t[:1].double().cpu() for t in (first.input, first.offset)),
            first.weight.double().cpu(),
            None,
            *(1, 1, 1),
            first.mask[:1].double().cpu(),
        )
        ours = VARIANTS[names.OURS_FLOAT32].forward(first)[:1].cpu()
    context.write(
        "accuracy",
        stage=stage,
        ours=relative_error(ours, exact),
        torchvision=relative_error(expected[names.FORWARD][0][:1].cpu(), exact),
    )


def run(context: Context) -> None:
    context.needs_native()
    done = 0
    with tf32(False):
        for problem in problems(QUICK_SHAPES if context.quick else SHAPES):
            if not context.enough_time(f"check of {problem.name}", 0.25 * context.seconds):
                break
            check(context, problem)
            done += 1
    for stage in ("C4", "C3", "C5"):
        if context.enough_time(f"large check, {stage}"):
            check_large(context, stage)
    context.write("checked", shapes=done, failed=len(context.failures))
    context.check()
