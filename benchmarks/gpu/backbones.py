"""Whole backbones at 800x1344, inference and training steps, beside torchvision's with the same parameters."""

import copy
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.bench_backbone import INFERENCE, Outputs, inference, spread_offsets, torchvision_backbone, training_step
from benchmarks.gpu.cells import Cell
from benchmarks.gpu.context import Context, first_line
from benchmarks.measure import Candidate, compare_blocks, graphed, relative_error, tf32
from benchmarks.records import microseconds
from resnet_cuda import optimize_for_inference, resnet_fpn_backbone
from resnet_cuda.inference.convolution import FoldedConv2d

DCN_STAGES = {"R-50-FPN": (False, False, False, False), "R-50-DCN": (False, True, True, True)}
FLOAT32_TOLERANCE, TOLERANCE = 1e-2, 0.25
# The modes of torch.compile; CUDA graphs are captured here, for all candidates alike.
DEFAULT, MAX_AUTOTUNE = "default", "max-autotune-no-cudagraphs"


@dataclass(frozen=True)
class Way:
    """How a model is called: under autocast from float32 parameters, or all in bfloat16.

    ``optimized``: as ``optimize_for_inference`` makes it; ``compiled``: torch.compile's mode.
    """

    ours: bool
    autocast: bool
    tf32: bool = False
    compiled: str | None = None
    optimized: bool = False

    def forward(self, model: nn.Module, image: Tensor) -> Outputs:
        with torch.autocast(image.device.type, torch.bfloat16, self.autocast):
            return model(image if self.autocast else image.bfloat16())


WAYS = {
    "resnet_cuda, bfloat16": Way(True, False),
    "resnet_cuda, autocast bfloat16": Way(True, True),
    "torchvision, autocast bfloat16": Way(False, True),
    "torchvision, autocast bfloat16, TF32 on for its deform_conv2d": Way(False, True, tf32=True),
    "torchvision, all bfloat16": Way(False, False),
    "torchvision, all bfloat16, torch.compile": Way(False, False, compiled=DEFAULT),
    "torchvision, all bfloat16, torch.compile, max-autotune": Way(False, False, compiled=MAX_AUTOTUNE),
    "resnet_cuda, optimized, bfloat16": Way(True, False, optimized=True),
}


def make_image(context: Context, batch: int) -> Tensor:
    height, width = (32, 32) if context.quick else (800, 1344)
    generator = torch.Generator(context.device).manual_seed(batch)
    image = torch.randn(batch, 3, height, width, generator=generator, device=context.device)
    return image.contiguous(memory_format=torch.channels_last)


def _difference(outputs: Outputs, expected: Outputs) -> float:
    return max(relative_error(outputs[level], expected[level]) for level in expected)


def float32_models(context: Context, kind: str) -> tuple[nn.Module, nn.Module, Outputs]:
    """Our model, torchvision's, and what both give in float32."""
    torch.backends.cudnn.benchmark = True
    image = make_image(context, 1)
    torch.manual_seed(0)
    own = resnet_fpn_backbone("resnet50", trainable_layers=3, dcn_stages=DCN_STAGES[kind])
    own = own.to(image.device, memory_format=torch.channels_last)
    spread_offsets(own, image)
    peer = torchvision_backbone(own, kind == "R-50-DCN").to(memory_format=torch.channels_last)
    with tf32(False), torch.no_grad():
        expected = {level: output.clone() for level, output in own.eval()(image).items()}
        error = _difference(peer.eval()(image), expected)
    context.write("check", item=f"{kind}, float32, against torchvision", right=error <= FLOAT32_TOLERANCE, error=error)
    if not error <= FLOAT32_TOLERANCE:
        raise AssertionError(f"{kind} differs from torchvision's by {error:.3g} in float32")
    return own, peer, expected


def _model(context: Context, kind: str, name: str) -> nn.Module | None:
    """What is called in this way; None where it cannot be, or where its results are not near those of float32."""
    item, way = f"{kind}, {name}", WAYS[name]
    own, peer, expected = context.once(kind, lambda: float32_models(context, kind))
    model = own if way.ours else peer
    if not way.autocast:
        model = copy.deepcopy(model).bfloat16()
    if way.compiled and context.quick:
        context.not_measured(item, "a quick run compiles nothing")
        return None
    if way.optimized:
        model = optimize_for_inference(model.eval())
    if way.compiled:
        model = torch.compile(model, mode=way.compiled)
    try:
        with tf32(way.tf32), torch.no_grad():
            error = _difference(way.forward(model.eval(), make_image(context, 1)), expected)
    except RuntimeError as refused:  # torchvision has no bfloat16 deform_conv2d on a CPU, say
        context.not_measured(item, first_line(refused))
        return None
    context.write("check", item=item, right=error <= TOLERANCE, error=error)
    if not error <= TOLERANCE:
        context.failures.append(f"{item} differs from float32 by {error:.3g}")
        return None
    return model


def choices(model: nn.Module) -> dict[str, int]:
    """How many pairs of a convolution and a shape run in each way: the names in ``resnet_cuda.inference.cuda``."""
    layers = [layer for layer in model.modules() if isinstance(layer, FoldedConv2d)]
    return dict(Counter(name for layer in layers for name in layer.packed.autotuner.chosen.values()))


def _kept_model(context: Context, kind: str, name: str) -> nn.Module | None:
    return context.once((kind, name), lambda: _model(context, kind, name))


def prepare(context: Context, kind: str, name: str, mode: str, batch: int) -> Callable[[], object] | None:
    """The call to be timed."""
    model = _kept_model(context, kind, name)
    image = make_image(context, 1 if context.quick else batch)
    make = inference if mode == INFERENCE else training_step
    return model and make(model, functools.partial(WAYS[name].forward, model, image))


def measure(context: Context, cell: Cell) -> None:
    """Times on record; inference at batch 1 also as a CUDA graph."""
    calls = {name: prepare(context, cell.where, name, cell.what, cell.batch) for name in cell.candidates}
    calls = {name: call for name, call in calls.items() if call is not None}
    _time(context, cell, calls, graph=False)
    for name in calls:
        if WAYS[name].optimized:
            calls_by_way = choices(_kept_model(context, cell.where, name))
            context.write("choices", item=f"{cell.where}, batch {cell.batch}, {name}", calls=calls_by_way)
    if cell.what == INFERENCE and cell.batch == 1 and context.device.type == "cuda":
        graphs = {}
        for name, call in calls.items():
            if cell.where == "R-50-DCN" and not WAYS[name].ours:
                reason = "torchvision's deform_conv2d launches on the default stream, which a capture forbids"
                context.not_measured(f"{cell.where}, {name}, CUDA graph", reason)
            else:
                with tf32(WAYS[name].tf32):
                    graphs[name] = graphed(call)
        _time(context, cell, graphs, graph=True)


def _time(context: Context, cell: Cell, calls: dict[str, Callable], graph: bool) -> None:
    made = [Candidate(name, [call], functools.partial(tf32, WAYS[name].tf32)) for name, call in calls.items()]
    batch = 1 if context.quick else cell.batch
    facts = {"op": cell.op, "backbone": cell.where, "mode": cell.what, "batch": batch, "cuda_graph": graph}
    for name, line in compare_blocks(made, context.device, context.effort).items():
        per_image = round(microseconds(line) / batch / 1e3, 4)
        context.write("time", **facts, candidate=name, **line, ms_per_image=per_image)
