"""The speed of your own model before and after ``accelerate`` and ``optimize_for_inference``.

    python docs/tutorials/accelerated.py                                 # torchvision's, timm's and a deformable one
    python docs/tutorials/accelerated.py --model my_package:make_model   # a function without arguments
    python docs/tutorials/accelerated.py --write                         # into docs/tutorials/accelerated.md

Outputs are compared before anything is timed; the candidates take turns. ``--no-times`` leaves the timing out.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = ["", str(HERE), str(HERE.parents[1])]

from page_parts import write_part  # noqa: E402

import resnet_cuda  # noqa: E402
from benchmarks.environment import describe  # noqa: E402
from benchmarks.measure import compare  # noqa: E402

STEPS = ("as it is", "accelerate", "optimize_for_inference", "both")
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1, torch.float16: 5e-2}
WIDTH = 116  # of a report's lines
NOT_MEASURED = "\N{EN DASH}"


# A model of each kind. Yours: a function without arguments that gives a module.


def torchvision_backbone() -> nn.Module:
    """torchvision's ResNet-50-FPN with its FrozenBatchNorm2d."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name="resnet50", weights=None)


def timm_features() -> nn.Module:
    """timm's ResNet-50 as a feature extractor; its BatchNorm2d are constants in evaluation mode."""
    import timm

    return timm.create_model("resnet50", features_only=True, pretrained=False)


class TorchvisionDeformable(nn.Module):
    """A layer as many projects write it: torchvision's DeformConv2d, and a convolution that predicts its offsets."""

    def __init__(self, channels: int):
        super().__init__()
        from torchvision.ops import DeformConv2d

        self.offset = nn.Conv2d(channels, 27, 3, padding=1)
        self.conv = DeformConv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = self.offset(x).split((18, 9), dim=1)
        return self.conv(x, offset, mask.sigmoid())


def torchvision_deformable() -> nn.Module:
    """torchvision's ResNet-50-FPN with deformable convolutions in the blocks of C3 to C5 that do not stride."""
    model = torchvision_backbone()
    for stage in (model.body.layer2, model.body.layer3, model.body.layer4):
        for block in stage[1:]:
            block.conv2 = TorchvisionDeformable(block.conv2.in_channels)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "torchvision, ResNet-50-FPN": torchvision_backbone,
    "torchvision, ResNet-50-FPN with DeformConv2d": torchvision_deformable,
    "timm, resnet50 as feature extractor": timm_features,
}


# What is done to it.


@dataclass
class Measured:
    """Of one model: what was done to it, how far its outputs are off, milliseconds per step."""

    reports: dict[str, str] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)


def measure(model: nn.Module, image: Tensor, repeats: int, budget: float) -> Measured:
    """``model`` as it is, accelerated, optimized, and a copy with both; ``repeats`` of 0 times nothing.

    Raises:
        RuntimeError: where outputs differ by more than rounding.
    """
    found = Measured()
    accelerated = copy.deepcopy(model)
    found.reports["accelerate"] = str(resnet_cuda.accelerate(accelerated))
    optimized = resnet_cuda.optimize_for_inference(model)
    found.reports["optimize_for_inference"] = str(optimized.optimization_report)
    both = copy.deepcopy(optimized)
    found.reports["both"] = str(resnet_cuda.accelerate(both))

    with torch.inference_mode():
        expected = tensors(model(image))
        for step, changed in zip(STEPS[1:], (accelerated, optimized, both), strict=True):
            off = largest_difference(expected, tensors(changed(image)))
            if not off <= TOLERANCE[image.dtype]:
                raise RuntimeError(f"{step}: outputs differ by {off:.1e} of the largest value")
            found.differences[step] = off
        if repeats:
            models = zip(STEPS, (model, accelerated, optimized, both), strict=True)
            calls = {step: (lambda it=it: it(image)) for step, it in models}
            timings = compare(calls, image.device, repeats, budget, rotate=True)
            found.milliseconds = {step: timing.median for step, timing in timings.items()}
    return found


def tensors(outputs: object) -> list[Tensor]:
    """All tensors of a result, whatever it is made of."""
    if isinstance(outputs, Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def largest_difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Relative to each tensor's largest value."""
    pairs = zip(expected, found, strict=True)
    return max(float((a.float() - b.float()).abs().max() / a.float().abs().max().clamp_min(1e-12)) for a, b in pairs)


def randomised(model: nn.Module) -> nn.Module:
    """With statistics and offsets that are not those of a new network, which would make norms the identity."""
    torch.manual_seed(0)
    ranges = {"running_var": (0.5, 1.5), "running_mean": (-0.2, 0.2), "weight": (0.4, 0.6), "bias": (-0.2, 0.2)}
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "running_var"):
                for name, (low, high) in ranges.items():
                    getattr(module, name).uniform_(low, high)
    return model.eval()


# The page's parts.


def table(measured: Mapping[str, Measured], device: str) -> str:
    """Milliseconds, and how many times as fast as before; a dash where nothing was timed."""
    lines = [f"| {device} | {' | '.join(STEPS)} |", "|---|" + "---|" * len(STEPS)]
    for name, it in measured.items():
        cells = []
        for step in STEPS:
            if not it.milliseconds:
                cells.append(NOT_MEASURED)
                continue
            gain = it.milliseconds[STEPS[0]] / it.milliseconds[step]
            cells.append(f"{it.milliseconds[step]:.1f} ms" + ("" if step == STEPS[0] else f", {gain:.2f}x"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def reports(measured: Mapping[str, Measured]) -> str:
    lines = []
    for name, it in measured.items():
        lines.append(f"{name}")
        for step, report in it.reports.items():
            lines.append(f"  {step}: outputs to {it.differences[step]:.0e} of the largest value")
            for line in report.splitlines():
                lines += textwrap.wrap(f"    {line}", WIDTH, subsequent_indent=" " * 8)
        lines.append("")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help="gives your own model; the page's three by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--size", nargs=2, type=int, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, help="CPU threads; torch's default otherwise")
    parser.add_argument("--repeats", type=int, default=15, help="turns (15)")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds per candidate (20)")
    parser.add_argument("--no-times", action="store_true", help="compare the outputs only")
    parser.add_argument("--write", action="store_true", help="write the tables into accelerated.md beside this file")
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    device, dtype = torch.device(chosen.device), getattr(torch, chosen.dtype)
    makers = dict(MODELS)
    if chosen.model:
        module, _, function = chosen.model.partition(":")
        makers = {chosen.model: getattr(importlib.import_module(module), function)}
    image = torch.rand(chosen.batch, 3, *chosen.size).to(device, dtype, memory_format=torch.channels_last)

    measured: dict[str, Measured] = {}
    for name, make in makers.items():
        model = make().eval() if chosen.model else randomised(make())
        model = model.to(device, dtype).to(memory_format=torch.channels_last)
        measured[name] = measure(model, image, 0 if chosen.no_times else chosen.repeats, chosen.budget)
    facts = describe(device)
    what = facts.get("gpu") or f"{facts['processor']}, {facts['threads']} threads"
    shape = "x".join(map(str, image.shape))
    conditions = (
        f"Not timed yet; {chosen.dtype}, {shape}.\n"
        if chosen.no_times
        else f"{what}; {chosen.dtype}, {shape}, channels_last; torch {facts['torch']}, torchvision "
        f"{facts['torchvision']}, {facts['date']}, commit {facts['commit']}. Medians of at least "
        f"{chosen.repeats} turns.\n"
    )
    text = f"{textwrap.fill(conditions, 120)}\n\n{table(measured, device.type)}"
    print(reports(measured))
    print(text)
    if chosen.write:
        page = HERE / "accelerated.md"
        write_part(page, f"times on {device.type}", text)
        write_part(page, "reports", f"```text\n{reports(measured)}```")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
