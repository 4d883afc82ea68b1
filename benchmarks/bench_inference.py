"""Inference of the whole backbone, folded, beside torchvision, torch.compile, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import onnx_runtimes
from benchmarks.bench_backbone import SIZES, TOLERANCE, spread_offsets, torchvision_backbone
from benchmarks.compiling import compiled, first_call_seconds, forget_compiled
from benchmarks.measure import check_agreement, compare
from benchmarks.results import OURS, Row, Settings
from resnet_cuda import deformable_layers, optimize_for_inference, resnet_fpn_backbone

Outputs = Mapping[str, Tensor]
Call = Callable[[], Outputs]


@dataclass(frozen=True)
class Problem:
    """A network with random statistics, the same in torchvision's classes, and an image, all float32."""

    own: nn.Module
    theirs: nn.Module | None
    image: Tensor
    settings: Settings

    def given(self, model: nn.Module | None) -> tuple[nn.Module, Tensor]:
        """Model and image in the dtype and layout asked for."""
        if model is None:
            raise ImportError("torchvision is not installed")
        dtype = self.settings.dtype
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        return copy.deepcopy(model).to(dtype=dtype, memory_format=layout), self.image.to(dtype, memory_format=layout)


def _eager(model: nn.Module, image: Tensor) -> Call:
    return lambda: model(image)


class CompiledCall:
    """A call of a compiled network, which the first call has compiled; ``seconds`` is what that one took."""

    def __init__(self, model: nn.Module, image: Tensor, **options: object):
        self._model, self._image = compiled(model, **options), image
        self.seconds = first_call_seconds(self)

    def __call__(self) -> Outputs:
        return self._model(self._image)


def _openvino(problem: Problem) -> Call:
    if not deformable_layers(problem.own):
        return onnx_runtimes.openvino(optimize_for_inference(problem.own), problem.image, problem.settings, True)
    if problem.theirs is None:
        raise ImportError("torchvision is not installed")
    return onnx_runtimes.openvino(problem.theirs, problem.image, problem.settings, False)


# A candidate that cannot be made here raises; the reason is printed.
CANDIDATES: dict[str, Callable[[Problem], Call]] = {
    OURS: lambda it: _eager(optimize_for_inference(it.given(it.own)[0]), it.given(it.own)[1]),
    f"{OURS}, eager": lambda it: _eager(*it.given(it.own)),
    f"{OURS}, torch.compile": lambda it: CompiledCall(*it.given(it.own)),
    f"{OURS}, compiled with freezing": lambda it: CompiledCall(*it.given(it.own), freezing=True),
    "torchvision": lambda it: _eager(*it.given(it.theirs)),
    "torchvision, torch.compile": lambda it: CompiledCall(*it.given(it.theirs)),
    "torchvision, with freezing": lambda it: CompiledCall(*it.given(it.theirs), freezing=True),
    "ONNX Runtime": lambda it: onnx_runtimes.onnx_runtime(optimize_for_inference(it.own), it.image, it.settings),
    "OpenVINO": _openvino,
}


def run(settings: Settings) -> Iterator[Callable[[], Row]]:
    """One measurement per network, size and dtype; float32 is followed by bfloat16."""
    dtypes = [torch.float32, torch.bfloat16] if settings.dtype == torch.float32 else [settings.dtype]
    for deformable in (False, True):
        for size in ["480x640"] if settings.quick else SIZES:
            for dtype in dtypes:
                yield partial(_row, size, deformable, replace(settings, dtype=dtype))


def make_problem(shape: tuple[int, ...], deformable: bool, settings: Settings) -> Problem:
    """Without statistics of their own, norms would be the identity and folding them would change nothing."""
    torch.manual_seed(0)
    own = resnet_fpn_backbone("resnet50", dcn_stages=(False, *[deformable] * 3)).eval()
    for name, tensor in own.named_buffers():
        tensor.uniform_(*{"running_var": (0.5, 1.5), "weight": (0.4, 0.6)}.get(name.rpartition(".")[2], (-0.2, 0.2)))
    image = torch.randn(*shape)
    spread_offsets(own, image)
    try:
        theirs = torchvision_backbone(own, deformable).eval()
    except ImportError:
        theirs = None
    device = settings.device
    return Problem(own.to(device), None if theirs is None else theirs.to(device), image.to(device), settings)


class Prepared(NamedTuple):
    """Calls and why other candidates are not there, by candidate; of those compiled, seconds of the first call."""

    calls: dict[str, Call]
    notes: dict[str, str]
    compile_seconds: dict[str, float]


def prepare(problem: Problem) -> Prepared:
    """The calls whose results agree with float32 on every level."""
    calls: dict[str, Call] = {}
    notes: dict[str, str] = {}
    seconds: dict[str, float] = {}
    forget_compiled()
    with torch.inference_mode():
        expected = dict(problem.own(problem.image))
        for name, make in CANDIDATES.items():
            try:
                call = make(problem)
                found = call()
            except (ImportError, onnx_runtimes.NotThereError) as error:
                notes[name] = str(error).splitlines()[0]
                continue
            except RuntimeError as error:
                if "not implemented for" not in str(error):  # torchvision's operator, for bfloat16
                    raise
                notes[name] = str(error).splitlines()[0]
                continue
            for level, value in found.items():
                check_agreement(level, name, value, expected[level], TOLERANCE[problem.settings.dtype])
            if isinstance(call, CompiledCall):
                seconds[name] = call.seconds
            calls[name] = torch.inference_mode()(call.__call__ if isinstance(call, CompiledCall) else call)
    return Prepared(calls, notes, seconds)


def _row(size: str, deformable: bool, settings: Settings) -> Row:
    calls, notes, compile_seconds = prepare(make_problem(SIZES[size], deformable, settings))
    # ONNX Runtime's and OpenVINO's threads spin for a while after a call, on the cores of the next candidate.
    effort = settings.repeats, settings.budget_seconds
    timings = compare(calls, settings.device, *effort, own_threads=settings.device.type == "cpu", rotate=True)
    for name, seconds in compile_seconds.items():
        timings[name].compile_seconds = seconds
    network = "ResNet-50-FPN with DCNv2 in C3-C5" if deformable else "ResNet-50-FPN"
    return Row(f"{network}, deployed", f"{size}, {str(settings.dtype).removeprefix('torch.')}", timings, None, notes)
