"""Phase 7: whole backbones at 800x1344, inference and training steps, beside torchvision's."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.gpu import models, names
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context, first_line
from benchmarks.gpu.names import INFERENCE, TRAINING
from benchmarks.gpu.records import best_known
from benchmarks.gpu.timing import QUICK, Candidate, Effort, compare_in_turns
from benchmarks.gpu.variants import tf32
from benchmarks.measure import relative_error

# mode, batch; the predicted and never measured ones first.
DEFORMABLE_ORDER = ((INFERENCE, 1), (INFERENCE, 8), (TRAINING, 8), (TRAINING, 2))
PLAIN_ORDER = ((INFERENCE, 1), (TRAINING, 8), (INFERENCE, 8), (TRAINING, 2))
FLOAT32_TOLERANCE, TOLERANCE = 1e-2, 0.25
Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Way:
    """A model and how it is called: under autocast from float32 parameters, or all in bfloat16."""

    name: str
    model: nn.Module
    autocast: bool
    tf32: bool = False

    def forward(self, image: Tensor) -> Outputs:
        with torch.autocast(image.device.type, torch.bfloat16, self.autocast):
            return self.model(image if self.autocast else image.bfloat16())

    def setting(self):
        return tf32(self.tf32)


def make_image(context: Context, batch: int) -> Tensor:
    height, width = (32, 32) if context.quick else (800, 1344)
    generator = torch.Generator(context.device).manual_seed(batch)
    image = torch.randn(batch, 3, height, width, generator=generator, device=context.device)
    return image.contiguous(memory_format=torch.channels_last)


def _ways(kind: str, own: nn.Module, peer: nn.Module | None) -> list[Way]:
    def narrow(model: nn.Module) -> nn.Module:
        return copy.deepcopy(model).bfloat16()

    ways = [Way(names.OURS_BFLOAT16, narrow(own), False), Way(names.OURS_AUTOCAST, own, True)]
    if peer is not None:
        ways.append(Way(names.EAGER_AUTOCAST, peer, True))
        if kind == names.DEFORMABLE:
            ways.append(Way(names.EAGER_AUTOCAST_TF32, peer, True, tf32=True))
        else:
            ways.append(Way(names.EAGER_BFLOAT16, narrow(peer), False))
    return ways


def make_inference(way: Way, image: Tensor) -> Callable[[], Outputs]:
    way.model.eval()

    def call() -> Outputs:
        with torch.no_grad():
            return way.forward(image)

    return call


def make_training_step(way: Way, image: Tensor) -> Callable[[], None]:
    way.model.train()

    def call() -> None:
        way.model.zero_grad(set_to_none=True)
        loss = sum(output.float().square().mean() for output in way.forward(image).values())
        loss.backward()

    return call


def _replay(graph: torch.cuda.CUDAGraph, _kept: Callable) -> None:
    graph.replay()


def graphed(call: Callable[[], Outputs]) -> Callable[[], None]:
    """``call`` captured as a CUDA graph, and kept with it: the graph reads its arguments and parameters where they lay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return functools.partial(_replay, graph, call)


def _difference(outputs: Outputs, expected: Outputs) -> float:
    return max(relative_error(outputs[level], expected[level]) for level in expected)


def _agreeing(context: Context, kind: str, ways: list[Way], own: nn.Module, image: Tensor) -> list[Way]:
    """The ways whose bfloat16 results are near our float32 ones; those of float32 must be torchvision's as well."""
    with tf32(False), torch.no_grad():
        own.eval()
        expected = {level: output.clone() for level, output in own(image).items()}
        peer = next((way.model for way in ways if way.name == names.EAGER_AUTOCAST), None)
        if peer is not None:
            error = _difference(peer.eval()(image), expected)
            right = error <= FLOAT32_TOLERANCE
            context.write("check", item=f"{kind}, float32, against torchvision", right=right, error=error)
            if not right:
                raise AssertionError(f"{kind} differs from torchvision's by {error:.3g} in float32")
    kept = []
    for way in ways:
        try:
            with way.setting():
                error = _difference(make_inference(way, image)(), expected)
        except RuntimeError as refused:  # torchvision has no bfloat16 deform_conv2d on a CPU, say
            context.not_measured(f"{kind}, {way.name}", first_line(refused))
            continue
        right = error <= TOLERANCE
        context.write("check", item=f"{kind}, {way.name}", right=right, error=error)
        if right:
            kept.append(way)
        else:
            context.failures.append(f"{kind}, {way.name} differs from float32 by {error:.3g}")
    return kept


def _compare(context: Context, kind: str, mode: str, batch: int, ways: list[Way]) -> None:
    image = make_image(context, batch)
    make = make_inference if mode == INFERENCE else make_training_step
    candidates = [Candidate(way.name, [make(way, image)], way.setting) for way in ways]
    effort = QUICK if context.quick else Effort()
    _write(context, kind, mode, batch, compare_in_turns(candidates, context.device, effort), graph=False)
    if mode == INFERENCE and batch == 1 and context.device.type == "cuda":
        graphs = []
        for way in ways:
            if kind == names.DEFORMABLE and not way.name.startswith("resnet_cuda"):
                reason = "torchvision's deform_conv2d launches on the default stream, which a capture forbids"
                context.not_measured(f"{kind}, {way.name}, CUDA graph", reason)
            else:
                with way.setting():
                    graphs.append(Candidate(way.name, [graphed(make_inference(way, image))], way.setting))
        _write(context, kind, mode, batch, compare_in_turns(graphs, context.device, effort), graph=True)


def _write(context: Context, kind: str, mode: str, batch: int, times: dict, graph: bool) -> None:
    facts = {"op": names.BACKBONE, "backbone": kind, "mode": mode, "batch": batch, "cuda_graph": graph}
    for name, one in times.items():
        line = one.record()
        per_image = round(best_known(line) / batch / 1e3, 4)
        context.write("time", **facts, candidate=name, **line, ms_per_image=per_image)


def _ready(context: Context, kind: str) -> list[Way]:
    """The ways to be timed: those that agree with float32."""
    torch.backends.cudnn.benchmark = True
    image = make_image(context, 1)
    own = models.ours(kind, image)
    try:
        peer = models.torchvisions(kind, own)
    except ImportError as error:
        peer = None
        context.not_measured(f"{kind}, torchvision", str(error))
    return _agreeing(context, kind, _ways(kind, own, peer), own, image)


def _measure(context: Context, kind: str, order: tuple[tuple[str, int], ...]) -> None:
    context.needs_native()
    context.write("clocks", **read_clocks(context.device))
    ways = _ready(context, kind)
    for mode, batch in order[:2] if context.quick else order:
        if context.enough_time(f"{kind}, {mode}, batch {batch}"):
            _compare(context, kind, mode, 1 if context.quick else batch, ways)
    context.write("clocks", **read_clocks(context.device))
    context.check()


def deformable(context: Context) -> None:
    """R-50-DCN."""
    _measure(context, names.DEFORMABLE, DEFORMABLE_ORDER)


def plain(context: Context) -> None:
    """R-50-FPN."""
    _measure(context, names.PLAIN, PLAIN_ORDER)


def compiled(context: Context) -> None:
    """torchvision's all-bfloat16 model under torch.compile beside ours, compile time excluded; last, since it may take long."""
    context.needs_native()
    ways = _ready(context, names.PLAIN)
    eager = next((way for way in ways if way.name == names.EAGER_BFLOAT16), None)
    item = f"{names.PLAIN}, torch.compile"
    if eager is None:
        context.not_measured(item, "torchvision is not installed")
    elif context.quick:
        context.not_measured(item, "a quick run compiles nothing")
    else:
        ours = next(way for way in ways if way.name == names.OURS_BFLOAT16)
        _compare(
            context, names.PLAIN, INFERENCE, 1, [ours, Way(names.COMPILED_BFLOAT16, torch.compile(eager.model), False)]
        )
    context.check()
