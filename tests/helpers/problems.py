"""Random arguments for a named case, the runs that the comparison needs, and the comparison of a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from helpers.cases import DeformCase
from helpers.compare import assert_bitwise_equal, assert_close, assert_gradients_present
from torch import Tensor

from resnet_cuda import reference

Arguments = dict[str, Tensor | None]
SIXTEEN_BIT = (torch.float16, torch.bfloat16)


class Run(NamedTuple):
    """One forward and backward: the output and, by argument, the gradients (None where there is none)."""

    output: Tensor
    gradients: Arguments


def random_offsets(shape: Iterable[int], spread: int, generator: torch.Generator, grid: bool) -> Tensor:
    """Offsets in [-spread, spread), float64: an eighth of them whole numbers, the others away from whole numbers.

    Bilinear sampling has a kink at each whole number. A position that lies beside one, closer than a rounding error,
    would have one derivative in float64 and another in float32, both right. With ``grid`` all offsets are multiples of
    1/16, which bfloat16 holds exactly.
    """
    shape = tuple(shape)
    whole = torch.randint(-spread, spread, shape, generator=generator).double()
    if grid:
        fraction = (2 * torch.randint(0, 8, shape, generator=generator) + 1).double() / 16
    else:
        fraction = 0.05 + 0.9 * torch.rand(shape, generator=generator, dtype=torch.float64)
    on_the_kink = torch.rand(shape, generator=generator) < 0.125
    return torch.where(on_the_kink, whole, whole + fraction)


def deform_arguments(
    case: DeformCase,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    position_dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Arguments:
    """input, offset, weight, bias and mask for ``case`` and the output's gradient as ``grad``.

    ``position_dtype`` is that of offset and mask; ``dtype`` where not given.
    """
    position_dtype = dtype if position_dtype is None else position_dtype
    generator = torch.Generator().manual_seed(seed)
    taps = case.kernel[0] * case.kernel[1]
    out_size = case.out_size

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    offset_shape = (case.batch, 2 * case.offset_groups * taps, *out_size)
    mask_shape = (case.batch, case.offset_groups * taps, *out_size)
    exact = {
        "input": normal(case.batch, case.channels, *case.size),
        "offset": random_offsets(offset_shape, case.spread, generator, grid=position_dtype in SIXTEEN_BIT),
        "weight": normal(case.out_channels, case.channels // case.groups, *case.kernel),
        "bias": normal(case.out_channels) if case.bias else None,
        "mask": torch.rand(mask_shape, generator=generator, dtype=torch.float64) if case.mask else None,
        "grad": normal(case.batch, case.out_channels, *out_size),
    }
    return {
        name: None if value is None else value.to(device, position_dtype if name in ("offset", "mask") else dtype)
        for name, value in exact.items()
    }


def exact_arguments(case: DeformCase, dtype: torch.dtype) -> Arguments:
    """As :func:`deform_arguments`, of numbers so short that nothing is rounded but the results.

    Whole numbers up to 3, offsets in quarters, masks in halves. Sampled values, in 1/32, are exact in 16 bits, and
    every product and sum of forward and backward is exact in float32, in any order.
    """
    generator = torch.Generator().manual_seed(0)

    def whole(tensor: Tensor, low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, tensor.shape, generator=generator)

    def exact(name: str, tensor: Tensor) -> Tensor:
        if name == "offset":
            return whole(tensor, -4 * case.spread, 4 * case.spread) / 4
        if name == "mask":
            return whole(tensor, 0, 2) / 2
        return whole(tensor, -3, 3)

    arguments = deform_arguments(case, dtype)
    return {name: None if value is None else exact(name, value).to(dtype) for name, value in arguments.items()}


def forward_arguments(case: DeformCase, dtype: torch.dtype, device: torch.device | str = "cpu") -> Arguments:
    """:func:`deform_arguments` without the output's gradient: what the operator takes."""
    return {name: value for name, value in deform_arguments(case, dtype, device).items() if name != "grad"}


def smooth_leaves(case: DeformCase, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """float64 tensors that require gradients, with positions 0.3 beyond whole numbers.

    At whole numbers bilinear sampling has kinks, where a numerical derivative is another one.
    """
    arguments = forward_arguments(case, torch.float64, device)
    arguments["offset"] = arguments["offset"].floor() + 0.3
    return {name: value.requires_grad_() for name, value in arguments.items() if value is not None}


def gradcheck(
    function: Callable, leaves: dict[str, Tensor], check: Callable = torch.autograd.gradcheck, **options
) -> bool:
    """torch.autograd.gradcheck, or ``check``, of a function of named tensors."""
    return check(lambda *values: function(**dict(zip(leaves, values, strict=True))), tuple(leaves.values()), **options)


def cast(arguments: Arguments, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Arguments:
    return {
        name: None if value is None else value.detach().to(device=device, dtype=dtype)
        for name, value in arguments.items()
    }


def run(function: Callable, arguments: Arguments, wanted: Iterable[str] | None = None, **options: object) -> Run:
    """Calls ``function`` and differentiates for ``wanted`` (all tensors but ``grad`` where not given)."""
    leaves = {name: value for name, value in arguments.items() if name != "grad" and value is not None}
    wanted = tuple(leaves) if wanted is None else tuple(wanted)
    leaves = {name: value.detach().requires_grad_(name in wanted) for name, value in leaves.items()}
    output = function(**leaves, **options)
    if wanted:
        output.backward(arguments["grad"])
    return Run(output.detach(), {name: leaf.grad for name, leaf in leaves.items()})


def mirrored_deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """The reference on the transposed images with the channels in reverse: the same result in another order of sums."""
    kernel = weight.shape[-2:]
    offset = offset.unflatten(1, (-1, *kernel, 2))  # [N, G, kh, kw, 2, Ho, Wo]
    offset = offset.permute(0, 1, 3, 2, 4, 6, 5).flip(1, 4).flatten(1, 4)
    if mask is not None:
        mask = mask.unflatten(1, (-1, *kernel)).permute(0, 1, 3, 2, 5, 4).flip(1).flatten(1, 3)
    output = reference.deform_conv2d(
        input.mT.flip(1),
        offset,
        weight.mT.flip(0, 1),
        None if bias is None else bias.flip(0),
        stride[::-1],
        padding[::-1],
        dilation[::-1],
        mask,
    )
    return output.flip(1).mT


def assert_run_close(
    got: Run,
    arguments: Arguments,
    function: Callable,
    measuring: Iterable[Callable],
    wanted: Iterable[str] | None = None,
    memory_format: torch.memory_format | None = None,
    trivial: Iterable[str] = (),
    **options: object,
) -> float:
    """Compares a run with ``function`` in float64 on the CPU; the budget comes from ``measuring`` in the same dtypes.

    Returns:
        the largest used part of a budget, 0 to 1.
    """
    local = cast(arguments, device="cpu")
    truth = run(function, cast(local, torch.float64), wanted, **options)
    measured = [run(one, local, wanted, **options) for one in measuring]
    names = [name for name, gradient in truth.gradients.items() if gradient is not None]
    assert_gradients_present(got.gradients, names)
    eps = torch.finfo(arguments["input"].dtype).eps
    trivial = tuple(trivial)
    used = assert_close(
        got.output,
        truth.output,
        [one.output for one in measured],
        name="output",
        dtype=arguments["input"].dtype,
        memory_format=memory_format,
        trivial="output" in trivial,
    )
    for name in names:
        part = assert_close(
            got.gradients[name],
            truth.gradients[name],
            [one.gradients[name] for one in measured],
            name=f"gradient for {name}",
            dtype=arguments[name].dtype,
            eps=eps,
            trivial=name in trivial,
        )
        used = max(used, part)
    return used


def assert_deform_run_close(got: Run, arguments: Arguments, case: DeformCase, **options: object) -> float:
    """:func:`assert_run_close` for a deformable convolution of ``case``."""
    measuring = (reference.deform_conv2d, mirrored_deform_conv2d)
    return assert_run_close(got, arguments, reference.deform_conv2d, measuring, **case.geometry, **options)


def assert_deform_run_exact(
    function: Callable,
    case: DeformCase,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.channels_last,
    wanted: Iterable[str] | None = None,
) -> None:
    """Compares a run on :func:`exact_arguments` with the reference in float64, rounded: to the bit."""
    arguments = {
        name: value.contiguous(memory_format=memory_format) if value is not None and value.dim() == 4 else value
        for name, value in exact_arguments(case, dtype).items()
    }
    got = run(function, arguments, wanted, **case.geometry)
    expected = run(reference.deform_conv2d, cast(arguments, torch.float64), wanted, **case.geometry)
    assert expected.output.any(), "nothing but zeros would be compared"
    assert_bitwise_equal(got.output, expected.output.to(dtype), f"{case}: output")
    for name, gradient in expected.gradients.items():
        if gradient is not None:
            assert_bitwise_equal(got.gradients[name], gradient.to(dtype), f"{case}: gradient for {name}")
