"""Deformable convolution, forward and backward (all gradients), beside its peers and the matrix product alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.cases import DEFORM_CONV, QUICK, DeformConvCase, DeformConvTensors, make_deform_conv
from benchmarks.measure import check_agreement, compare
from benchmarks.results import OURS, Row, Settings
from resnet_cuda import ops

FLOOR = "matrix product"
TILED = "matrix product, tile by tile"
TILE = 96  # pixels, as many as the CPU kernels take at a time
TOLERANCE = {torch.float32: 2e-3, torch.float16: 3e-2, torch.bfloat16: 6e-2, torch.float64: 1e-9}


def cases(settings: Settings) -> list[DeformConvCase]:
    return [case for case in DEFORM_CONV if not settings.quick or case.name in QUICK]


def matrix_product(case: DeformConvCase, tensors: DeformConvTensors) -> Callable[[], None]:
    """The products that every implementation has to make, on random im2col columns."""
    pixels = case.batch * case.height * case.width
    depth = 9 * case.in_channels // case.groups
    like = {"device": tensors.input.device, "dtype": tensors.input.dtype}
    weight = torch.randn(case.groups, case.out_channels // case.groups, depth, **like)
    columns = torch.randn(case.groups, depth, pixels, **like)
    output = torch.empty(case.groups, case.out_channels // case.groups, pixels, **like)

    def call() -> None:
        # One product per group, as a loop: faster on a CPU than one batched product.
        for group in range(case.groups):
            torch.mm(weight[group], columns[group], out=output[group])

    return call


def tiled_matrix_product(case: DeformConvCase, tensors: DeformConvTensors) -> Callable[[], None]:
    """The same products, ``TILE`` pixels at a time as in a kernel, each a call of ATen's."""
    depth = 9 * case.in_channels // case.groups
    weight = torch.randn(case.groups, depth, case.out_channels // case.groups, dtype=tensors.input.dtype)
    columns = torch.randn(TILE, depth, dtype=tensors.input.dtype)
    output = torch.empty(case.groups, TILE, case.out_channels // case.groups, dtype=tensors.input.dtype)
    tiles = case.batch * -(-case.height * case.width // TILE)

    def call() -> None:
        for _ in range(tiles):
            for group in range(case.groups):
                torch.mm(columns, weight[group], out=output[group])

    return call


def ours(case: DeformConvCase, tensors: DeformConvTensors) -> Callable[[], Tensor]:
    return lambda: ops.deform_conv2d(
        tensors.input, tensors.offset, tensors.weight, None, case.stride, 1, 1, tensors.mask
    )


def _usable(settings: Settings, differentiable: bool) -> tuple[list[peers.Peer], dict[str, str]]:
    found, notes = peers.available()
    usable = []
    for peer in found:
        if settings.device.type not in peer.devices:
            notes[peer.name] = f"has no {settings.device.type} implementation"
        elif settings.dtype not in peer.dtypes:
            notes[peer.name] = f"has no {settings.dtype}"
        elif differentiable and not peer.differentiable:
            notes[peer.name] = "has no backward"
        else:
            usable.append(peer)
    return usable, notes


def forward(settings: Settings) -> Iterator[Callable[[], Row]]:
    """One measurement per case, each to be called."""
    usable, notes = _usable(settings, differentiable=False)
    for case in cases(settings):
        yield lambda case=case: _forward_row(case, settings, usable, dict(notes))


def _forward_row(case: DeformConvCase, settings: Settings, usable: list[peers.Peer], notes: dict[str, str]) -> Row:
    tensors = make_deform_conv(case, settings.device, settings.dtype, settings.channels_last)
    candidates = {OURS: ours(case, tensors)}
    with torch.no_grad():
        expected = candidates[OURS]()
        for peer in usable:
            try:
                call = peer.forward(case, tensors)
                result = call()
            except RuntimeError as error:
                notes[peer.name] = str(error).splitlines()[0]
                continue
            check_agreement(case.name, peer.name, result, expected, TOLERANCE[settings.dtype])
            candidates[peer.name] = call
        candidates[FLOOR] = matrix_product(case, tensors)
        on_cpu = settings.device.type == "cpu"
        if on_cpu and torch.get_num_threads() == 1:
            # With more threads each would make its own tiles, which Python cannot imitate.
            candidates[TILED] = tiled_matrix_product(case, tensors)
        timings = compare(candidates, settings.device, settings.repeats, settings.budget_seconds, own_threads=on_cpu)
    return Row("deform_conv2d forward", case.name, timings, FLOOR, notes)


def backward(settings: Settings) -> Iterator[Callable[[], Row]]:
    """One measurement per case, each to be called."""
    usable, notes = _usable(settings, differentiable=True)
    for case in cases(settings):
        yield lambda case=case: _backward_row(case, settings, usable, dict(notes))


def leaves(tensors: DeformConvTensors) -> DeformConvTensors:
    """The same arguments, as what gradients are asked for."""

    def leaf(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().requires_grad_()

    return DeformConvTensors(
        leaf(tensors.input), leaf(tensors.offset), leaf(tensors.weight), leaf(tensors.mask), tensors.grad
    )


def gradients(output: Tensor, tensors: DeformConvTensors) -> Callable[[], tuple[Tensor, ...]]:
    """The backward of ``output``, a result for ``tensors``: the gradients for all its arguments."""
    wanted = [t for t in (tensors.input, tensors.offset, tensors.weight, tensors.mask) if t is not None]
    return lambda: torch.autograd.grad(output, wanted, tensors.grad, retain_graph=True)


def _backward_row(case: DeformConvCase, settings: Settings, usable: list[peers.Peer], notes: dict[str, str]) -> Row:
    tensors = leaves(make_deform_conv(case, settings.device, settings.dtype, settings.channels_last))
    outputs = {OURS: ours(case, tensors)()} | {peer.name: peer.forward(case, tensors)() for peer in usable}
    candidates: dict[str, Callable[[], object]] = {name: gradients(output, tensors) for name, output in outputs.items()}
    expected = candidates[OURS]()
    for peer in usable:
        for result, reference in zip(candidates[peer.name](), expected, strict=True):
            check_agreement(case.name, peer.name, result, reference, TOLERANCE[settings.dtype])
    candidates[FLOOR] = matrix_product(case, tensors)
    timings = compare(candidates, settings.device, settings.repeats, settings.budget_seconds)
    return Row("deform_conv2d backward", case.name, timings, FLOOR, notes)
