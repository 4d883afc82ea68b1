"""Activation memory: the bytes that a forward of the backbone stores for its backward, in this and other libraries.

The frozen stem and C2 store nothing in any of them: the image needs no gradient. Distinct storages are counted
(:mod:`benchmarks.activation_memory`), so the figures are exact and the same on every device with the same operators.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.activation_memory import Stored, needed, stored
from benchmarks.bench_backbone import SIZES, TOLERANCE
from benchmarks.bench_inference import Problem, make_problem
from benchmarks.compiling import forget_compiled
from benchmarks.measure import check_agreement
from benchmarks.results import OURS, Settings, StoredRow

FLOOR = "what the operators need"
STAGES = ("layer2", "layer3", "layer4")
# What a compiled network stores is decided before code is generated: by the partitioner that Inductor, too, runs.
PARTITION = "aot_eager_decomp_partition"
QUICK = "128x192"  # bytes are proportional to the pixels
SHAPES = {QUICK: (1, 3, 128, 192), **SIZES}


class Precision(NamedTuple):
    """How the network is called."""

    parameters: torch.dtype
    autocast: torch.dtype | None


PRECISIONS = {
    "float32": Precision(torch.float32, None),
    "autocast bfloat16": Precision(torch.float32, torch.bfloat16),
    "all bfloat16": Precision(torch.bfloat16, None),
}


class Detectron2FrozenBatchNorm2d(nn.Module):
    """detectron2.layers.FrozenBatchNorm2d, made of another norm's buffers: its forward, line by line."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            bias = self.bias - self.running_mean * scale
            scale = scale.reshape(1, -1, 1, 1)
            bias = bias.reshape(1, -1, 1, 1)
            return x * scale.to(x.dtype) + bias.to(x.dtype)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def with_detectron2_norms(network: nn.Module) -> nn.Module:
    """A copy of torchvision's network, whose blocks do what detectron2's do apart from the norm."""
    from torchvision.ops.misc import FrozenBatchNorm2d

    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, FrozenBatchNorm2d):
                setattr(module, name, Detectron2FrozenBatchNorm2d(child))
    return network


def _theirs(problem: Problem) -> nn.Module:
    if problem.theirs is None:
        raise ImportError("torchvision is not installed")
    return problem.theirs


CANDIDATES: dict[str, tuple[Callable[[Problem], nn.Module], bool]] = {  # and whether it is compiled
    OURS: (lambda problem: problem.own, False),
    "torchvision": (_theirs, False),
    "detectron2's norms": (lambda problem: with_detectron2_norms(_theirs(problem)), False),
    f"{OURS}, torch.compile": (lambda problem: problem.own, True),
    "torchvision, torch.compile": (_theirs, True),
}


def run(settings: Settings) -> Iterator[Callable[[], StoredRow]]:
    """One case per network and precision, at the size of detectors' training."""
    size = QUICK if settings.quick else "800x1344"
    for deformable in (False, True):
        for precision in PRECISIONS:
            yield partial(_row, size, deformable, precision, settings)


def _row(size: str, deformable: bool, precision: str, settings: Settings) -> StoredRow:
    network = "ResNet-50-FPN with DCNv2 in C3-C5" if deformable else "ResNet-50-FPN"
    row = StoredRow(f"{network}, stored for backward", f"{size}, {precision}", {}, {}, FLOOR)
    measure(make_problem(SHAPES[size], deformable, settings), PRECISIONS[precision], row)
    return row


def measure(problem: Problem, precision: Precision, row: StoredRow) -> None:
    """Fills ``row`` with the candidates whose outputs agree with float32, and with why others are not there."""
    with torch.no_grad():
        expected = dict(problem.own(problem.image))
    for name, (make, is_compiled) in CANDIDATES.items():
        try:
            network = make(problem)
        except ImportError as error:
            row.notes[name] = str(error).splitlines()[0]
            continue
        network = _in(copy.deepcopy(network).train(), precision, problem.settings)
        c3_to_c5 = nn.Sequential(OrderedDict((stage, getattr(network.body, stage)) for stage in STAGES))
        image = _in(problem.image, precision, problem.settings)
        try:
            activation = _result_of_c2(network, image, precision)
            whole = _stored(network, image, precision, is_compiled, (name, expected))
            stages = _stored(c3_to_c5, activation, precision, is_compiled)
        except RuntimeError as error:
            if "not implemented for" not in str(error):  # torchvision's operator, for bfloat16
                raise
            row.notes[name] = str(error).splitlines()[0]
            continue
        row.whole[name], row.stages[name] = whole, stages
        if name == OURS:
            ends = _stages(network)
            row.whole[FLOOR] = _needed(network, image, precision, ends)
            row.stages[FLOOR] = _needed(c3_to_c5, activation, precision, ends)


def _in(it, precision: Precision, settings: Settings):
    """A network or a tensor in the dtype and the layout asked for."""
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    return it.to(dtype=precision.parameters, memory_format=layout)


def _result_of_c2(network: nn.Module, image: Tensor, precision: Precision) -> Tensor:
    """What the stages from C3 on are given, in the dtype that this network's C2 gives under autocast."""
    kept = []
    handle = network.body.layer1.register_forward_hook(lambda module, arguments, output: kept.append(output))
    with torch.no_grad():
        _call(network, image, precision)()
    handle.remove()
    return kept[0]


def _stages(network: nn.Module) -> dict[str, nn.Module]:
    stages = {stage: getattr(network.body, stage) for stage in ("layer1", *STAGES)}
    return stages | {"fpn": network.fpn}


def _call(network: nn.Module, image: Tensor, precision: Precision) -> Callable[[], object]:
    def call() -> object:
        with torch.autocast(image.device.type, dtype=precision.autocast, enabled=precision.autocast is not None):
            return network(image)

    return call


def _needed(network: nn.Module, image: Tensor, precision: Precision, stages: dict[str, nn.Module]) -> Stored:
    ends = {name: stage for name, stage in stages.items() if name != "fpn"}
    return Stored({"all": needed(_call(network, image, precision), network, ends)}, 0)


def _stored(
    network: nn.Module,
    image: Tensor,
    precision: Precision,
    is_compiled: bool,
    compared: tuple[str, dict[str, Tensor]] | None = None,
) -> Stored:
    """``compared``: the candidate's name, and what its results must agree with."""
    # A compiled network is one node: its tensors belong to no stage.
    stages = _stages(network) if hasattr(network, "body") and not is_compiled else None
    if is_compiled:
        forget_compiled()
        forward = _call(torch.compile(network, dynamic=False, backend=PARTITION), image, precision)
        forward()
    else:
        forward = _call(network, image, precision)
    if compared is not None:
        name, expected = compared
        with torch.no_grad():
            results = forward()
        for level, value in results.items():
            check_agreement(level, name, value, expected[level], TOLERANCE[precision.autocast or precision.parameters])
    return stored(forward, network, stages)
