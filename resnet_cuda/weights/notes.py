"""What a report says of conventions that no key tells."""

from __future__ import annotations

from torch import Tensor

from resnet_cuda.weights.checkpoint import Checkpoint
from resnet_cuda.weights.conventions import PIXELS, Pixels, convert_stem, mean_in
from resnet_cuda.weights.report import LoadReport
from resnet_cuda.weights.source import Source
from resnet_cuda.weights.target import Target

_STEMS = ("stem.conv.weight", "stem.0.conv.weight")
_WHERE = {True: "the first 1x1", False: "the 3x3"}


def pair_of_pixels(checkpoint: Checkpoint, pixels: str | tuple[str, str]) -> tuple[Pixels, Pixels]:
    """The source's and the model's, by name."""
    names = (checkpoint.format.pixels, pixels) if isinstance(pixels, str) else pixels
    if not isinstance(names, tuple) or len(names) != 2 or any(name not in PIXELS for name in names):
        raise ValueError(
            f"load_weights: pixels is {pixels!r}; it must be one of {', '.join(PIXELS)}, or a pair of them"
        )
    return PIXELS[names[0]], PIXELS[names[1]]


def converted_stem(
    checkpoint: Checkpoint, pixels: str | tuple[str, str] | None, report: LoadReport
) -> dict[str, Tensor]:
    """The stem's weight for the input that ``pixels`` names, by neutral name; nothing where it stays."""
    if pixels is None:
        return {}
    source, target = pair_of_pixels(checkpoint, pixels)
    if source == target:
        return {}
    mean = mean_in(target.order, source)
    note = f"stem converted from {source} to {target}"
    if mean != target.mean:
        scaled = [round(value / 255, 6) for value in mean]
        note += f"; subtract the mean {mean} in place of {target.mean} (image_mean={scaled} in torchvision)"
    report.notes.append(note)
    return {
        name: convert_stem(checkpoint.tensors[name], source, target) for name in _STEMS if name in checkpoint.tensors
    }


def conventions(target: Target, source: Source, pixels: object, report: LoadReport) -> list[str]:
    """Appends notes; returns those that the caller should be warned of."""
    alarms = []
    checkpoint = source.checkpoint
    if any(name in checkpoint.tensors for name in _STEMS) and pixels is None:
        expected = PIXELS[checkpoint.format.pixels]
        report.notes.append(f"input: weights of {checkpoint.format.name} mostly expect {expected}")
        statistics = target.image_statistics()
        if statistics is not None and checkpoint.format.pixels != "torchvision" and _is_torchvisions(*statistics):
            alarms.append(
                f"the model's transform feeds RGB as torchvision's weights expect, {checkpoint.format.name}'s mostly "
                f"expect {expected}; pass pixels='torchvision' to convert the stem"
            )
    here, there = target.stride_in_1x1(), source.stride_in_1x1()
    if here is not None:
        text = f"stride: the model's bottlenecks stride in {_WHERE[here]}"
        if there is None:
            report.notes.append(f"{text}; {checkpoint.format.name} has weights of both kinds")
        elif here != there:
            alarms.append(f"{text}, those of the weights in {_WHERE[there]}: other results than in their own model")
        else:
            report.notes.append(f"{text}, as those of the weights")
    report.notes += alarms
    return alarms


def _is_torchvisions(mean: list[float], std: list[float]) -> bool:
    """Whether a transform of values 0 to 1 is torchvision's default."""
    expected = PIXELS["torchvision"]
    values = [*(255 * value for value in mean), *(255 * value for value in std)]
    return all(abs(a - b) < 0.01 for a, b in zip(values, (*expected.mean, *expected.std), strict=True))
