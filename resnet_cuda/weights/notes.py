"""Notes in a report on conventions that the keys do not show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_cuda.weights.conventions import PIXELS, Pixels, convert_stem, mean_in
from resnet_cuda.weights.formats import CAFFE2, DETECTRON2, MASKRCNN_BENCHMARK, MMDETECTION
from resnet_cuda.weights.recognised_source import Source
from resnet_cuda.weights.report import LoadReport
from resnet_cuda.weights.structure import differences, has_relu
from resnet_cuda.weights.target import Target

_STEMS = ("stem.conv.weight", "stem.0.conv.weight")
_WHERE = {True: "the first 1x1", False: "the 3x3"}


def pair_of_pixels(given: Source, pixels: str | Sequence[str], where: str) -> tuple[Pixels, Pixels]:
    """The input conventions of the source and of the model, looked up by name."""
    names = (given.pixels, pixels) if isinstance(pixels, str) else pixels
    is_pair = isinstance(names, (tuple, list)) and len(names) == 2
    if not is_pair or any(not isinstance(name, str) or name not in PIXELS for name in names):
        raise ValueError(f"{where}: pixels is {pixels!r}; it must be one of {', '.join(PIXELS)}, or a pair of them")
    return PIXELS[names[0]], PIXELS[names[1]]


def converted_stem(
    given: Source, pixels: str | Sequence[str] | None, report: LoadReport, where: str
) -> dict[str, Tensor]:
    """The stem's weight converted to the input named by ``pixels``, by neutral name; empty if it does not change."""
    if pixels is None:
        return {}
    checkpoint = given.checkpoint
    source, target = pair_of_pixels(given, pixels, where)
    stems = [name for name in _STEMS if name in checkpoint.tensors]
    if source == target or not stems:
        return {}
    mean = mean_in(target.order, source)
    note = f"stem converted from {source} to {target}"
    if mean != target.mean:
        scaled = [round(value / 255, 6) for value in mean]
        note += f"; subtract the mean {mean} in place of {target.mean} (image_mean={scaled} in torchvision)"
    report.notes.append(note)
    converted = {}
    for name in stems:
        weight = checkpoint.tensors[name]
        if weight.layout != torch.strided or not weight.is_floating_point():
            key = checkpoint.keys[name]
            raise ValueError(f"{report.source}: {key} is not a dense tensor of floating-point numbers")
        try:
            converted[name] = convert_stem(weight, source, target)
        except ValueError as error:
            raise ValueError(f"{report.source}: {error}") from None
    return converted


def verb_of_input(source: Source) -> str:
    """What stands between "the weights" and the input that they are for: a fact, or only what is likely."""
    if source.says("pixels"):
        return "are for" if source.knows("pixels") else "are probably for"
    return f"of {source.checkpoint.format.name} mostly expect"


def conventions(target: Target, source: Source, pixels: object, report: LoadReport) -> list[str]:
    """Appends notes to the report; returns the warnings for the caller."""
    alarms = []
    checkpoint = source.checkpoint
    name = checkpoint.format.name
    if any(it in checkpoint.tensors for it in _STEMS) and pixels is None:
        expected, mostly = PIXELS[source.pixels], verb_of_input(source)
        if checkpoint.format is not target.checkpoint.format:
            report.notes.append(f"input: the weights {mostly} {expected}")
        statistics = target.image_statistics()
        theirs = None if source.target is None else source.target.image_statistics()
        if statistics is not None and theirs is not None:
            if not _agree_with(theirs, statistics):
                alarms.append(f"the model normalises its input with {statistics}, the source with {theirs}")
        elif (
            statistics is not None
            and checkpoint.format is not target.checkpoint.format
            and not _agree(expected, *statistics)
        ):
            known = [it for it, pixels in PIXELS.items() if _agree(pixels, *statistics)]
            mean, std = (", ".join(f"{value:g}" for value in values) for values in statistics)
            alarms.append(
                f"the model normalises its input with mean {mean} and std {std}, weights {mostly} "
                f"{expected}; if these are such, pass pixels={known[0] if known else '...'!r} to convert the stem"
            )
    eps = source.assumed_eps()
    if eps is not None:
        report.notes.append(f"batch norms: {eps}")
    here, there = target.stride_in_1x1(), source.stride_in_1x1()
    if here is not None:
        text = f"stride: the model's bottlenecks stride in {_WHERE[here]}"
        if there is None and not here and _may_stride_in_1x1(source, target):
            alarms.append(
                f"{text}; {name}'s ResNet-50 and -101 of this kind mostly stride in the first 1x1, and then the "
                "results are others than in their own model: stride_in_1x1=True of resnet_fpn_backbone, STRIDE_IN_1X1 "
                "in a configuration"
            )
        elif there is None:
            kinds = f"{name} has weights of both kinds" if source.target is None else "the source's strides do not tell"
            report.notes.append(f"{text}; {kinds}")
        elif source.knows("stride_in_1x1"):
            if here != there:
                alarms.append(f"{text}, those of the weights in {_WHERE[there]}: other results than in their own model")
            else:
                report.notes.append(f"{text}, as those of the weights")
        else:
            most = "those of the weights probably" if source.says("stride_in_1x1") else f"those of {name}'s mostly"
            if here != there:
                alarms.append(f"{text}, {most} in {_WHERE[there]}: then the results are others than in their own model")
            else:
                report.notes.append(f"{text}, {most}, too")
    alarms += _pyramid(target, source)
    if source.target is not None:
        alarms += [f"other results than the source's: {text}" for text in differences(source.target, target)]
    return alarms


def _may_stride_in_1x1(source: Source, target: Target) -> bool:
    """Whether it is a file of a network whose published weights do: no group norms and no groups, as MSRA made them.
    Between models of one library the configuration decides."""
    checkpoint = source.checkpoint
    if source.target is not None or checkpoint.format not in (MASKRCNN_BENCHMARK, DETECTRON2, CAFFE2):
        return False
    conv, before = (checkpoint.tensors.get(f"res3.0.conv{k}.weight") for k in (2, 1))
    has_groups = conv is not None and before is not None and conv.shape[1] != before.shape[0]
    return (
        checkpoint.format is not target.checkpoint.format
        and not has_groups
        and "stem.gn.weight" not in checkpoint.tensors
    )


def _agree_with(one: tuple[list[float], list[float]], other: tuple[list[float], list[float]]) -> bool:
    pairs = [(a, b) for given, wanted in zip(one, other, strict=True) for a, b in zip(given, wanted, strict=False)]
    return [len(it) for it in one] == [len(it) for it in other] and all(
        abs(a - b) < 0.01 * abs(b) + 0.01 for a, b in pairs
    )


def _agree(expected: Pixels, mean: list[float], std: list[float]) -> bool:
    """Whether a model's statistics are those that weights expect, in order and scale, up to two grey levels."""
    if len(mean) != 3 or len(std) != 3:
        return True  # other images than RGB
    means = all(abs(a - b) < 2 for a, b in zip(mean, expected.mean, strict=True))
    return means and all(abs(a - b) < 0.05 * b for a, b in zip(std, expected.std, strict=True))


def _pyramid(target: Target, source: Source) -> list[str]:
    """What names do not tell of pyramids: mmdetection's P6 and P7, maskrcnn-benchmark's ReLU."""
    given, wanted = source.checkpoint, target.checkpoint
    alarms = []
    has_p7 = "fpn.p7.weight" in given.tensors and "fpn.p7.weight" in wanted.tensors
    if has_p7 and given.format is not wanted.format and MMDETECTION in (given.format, wanted.format):
        alarms.append(
            "mmdetection computes P6 and P7 from C5, a lateral or P5 (add_extra_convs), and P7 without a ReLU unless "
            "relu_before_extra_convs; the others from C5 or P5, and with a ReLU: check that both models agree"
        )
    # Without a norm the first of a sequence is a convolution before a ReLU; with one the names are the same.
    name = next((it for it in given.tensors if it.startswith("fpn.inner") and it.endswith(".conv.bias")), None)
    if given.format is MASKRCNN_BENCHMARK and name in wanted.tensors:
        there, here = given.keys[name].endswith(".0.bias"), has_relu(target, name)
        if here is not None and there != here and source.target is None:
            alarms.append(
                f"the source's pyramid has {'a' if there else 'no'} ReLU, the model's {'one' if here else 'none'}"
            )
    return alarms
