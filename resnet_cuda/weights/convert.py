"""Converts weights to another library's names: ``python -m resnet_cuda convert IN OUT --to FORMAT``."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from resnet_cuda.weights import files, sources
from resnet_cuda.weights.checkpoint import component_of
from resnet_cuda.weights.conventions import PIXELS
from resnet_cuda.weights.formats import CAFFE2, DETECTRON2, FORMATS, MMDETECTION, TORCHVISION, Format
from resnet_cuda.weights.load import checked_eps
from resnet_cuda.weights.norms import folded, with_eps
from resnet_cuda.weights.notes import converted_stem, verb_of_input
from resnet_cuda.weights.recognised_source import Source
from resnet_cuda.weights.reparametrized import advice
from resnet_cuda.weights.report import summary
from resnet_cuda.weights.unwrap import CONVENTIONS
from resnet_cuda.weights.values import FLOATS, is_dense

TARGETS = (*FORMATS, "timm")
ALIASES = {"mmdet": "mmdetection"}
LAYOUTS = ("classifier", "backbone", "detector")


@dataclass
class Conversion:
    """The result of :func:`convert`.

    Attributes:
        content: the file's content: the weights by key, wrapped as in files of the target's library.
        weights: the weights by key.
        source: the source's format.
        target: the target's format.
        layout: the kind of model that the keys fit, see :func:`convert`.
        left_out: the source's keys that have no name in the target's format.
        notes: as in a :class:`~resnet_cuda.weights.report.LoadReport`.
    """

    content: dict[str, Any]
    weights: dict[str, Tensor]
    source: str
    target: str
    layout: str
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.source} to {self.target}: {len(self.weights)} tensors, names of a {self.layout}"]
        if self.left_out:
            lines.append(f"  left out {len(self.left_out):4}  {summary(self.left_out)}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def convert(
    source: Any,
    to: str,
    *,
    layout: str | None = None,
    eps: float | None = None,
    pixels: str | Sequence[str] | None = None,
) -> Conversion:
    """Converts ``source`` to the names, the epsilon and the wrapper of another library.

    Tensors keep their values and dtypes, except variances if the libraries' epsilons differ: these become float64, so
    that converting back gives the same bits. (If a channel's variance is far below the epsilon, its weight is scaled
    instead, which is reversible up to rounding.) Caffe2 has only scale and shift, so that conversion is irreversible.

    Args:
        source: as for :func:`resnet_cuda.load_weights`.
        to: "torchvision", "timm", "maskrcnn-benchmark", "detectron2", "mmdetection" (or "mmdet") or "caffe2".
        layout: the kind of model that the keys should fit: "classifier" (no prefix and no pyramid; timm's only one),
            "backbone" (``body.``, ``fpn.``; detectron2's ``bottom_up.``), "detector" (``backbone.body.``, ...). None:
            as in the source. A detector's other parts are kept within one library without a layout or with
            "detector", and a classifier's last layer unless another layout is asked for; else they are left out.
        eps: epsilon of the source's batch norms, as for :func:`resnet_cuda.load_weights`.
        pixels: as for :func:`resnet_cuda.load_weights`: converts the stem.

    Returns:
        A :class:`Conversion`, which prints as a short table.

    Raises:
        ValueError: for an unknown format or layout, and for timm with another layout than "classifier"; for a source
            that cannot be read or has unknown keys; for NaN, infinite values and negative variances; and for weights
            without a name in the format: deformable layers in Caffe2, an average-pool shortcut in detectron2.
        TypeError: for a source of another type.
    """
    to = ALIASES.get(to, to) if isinstance(to, str) else to
    if to not in TARGETS:
        raise ValueError(f"convert: to is {to!r}; it must be one of {', '.join(TARGETS)}")
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"convert: layout is {layout!r}; it must be None or one of {', '.join(LAYOUTS)}")
    if to == "timm" and layout not in (None, "classifier"):
        raise ValueError(f"convert: timm has names of classifiers only; layout is {layout!r}, and must be None")
    asked = "classifier" if to == "timm" else layout
    eps = checked_eps("convert", eps)
    content, label = sources.resolve(source)
    model = source if isinstance(source, torch.nn.Module) else None
    given, report = Source.of(content, label, "convert", model, eps)
    checkpoint = given.checkpoint
    target = TORCHVISION if to == "timm" else FORMATS[to]
    stem = converted_stem(given, pixels, report, "convert")
    checkpoint.tensors.update(stem)
    report.notes += _notes(given, target, pixels, stem_is_converted=bool(stem))
    _check_values(label, given, target)
    if checkpoint.unknown:
        hint = advice(checkpoint.unknown, is_model=False)
        raise ValueError(
            f"convert: {label} has keys that no ResNet has: {', '.join(list(checkpoint.unknown)[:5])}"
            f"{'' if hint is None else f'. {hint}'}"
        )
    layout = asked or checkpoint.layout
    weights, left_out, nameless = _renamed(given, target, layout, asked)
    if nameless:
        raise ValueError(f"convert: {to} has no names for {len(nameless)} of {label}'s tensors: {summary(nameless)}")
    left_out = [*report.ignored, *checkpoint.spare, *left_out]
    content = _wrapped(weights, given, target, pixels)
    return Conversion(content, weights, checkpoint.format.name, to, layout, left_out, report.notes)


def _notes(given: Source, target: Format, pixels: str | Sequence[str] | None, stem_is_converted: bool) -> Iterator[str]:
    """What a user of the result must know: pixels, strides, epsilons, P7."""
    checkpoint = given.checkpoint
    if any(name.startswith("stem.") for name in checkpoint.tensors):
        have, usual = PIXELS[given.pixels], PIXELS[target.pixels]
        if pixels is not None and not stem_is_converted:
            expected = PIXELS[_name_of(pixels)]
            verb = "are for" if not isinstance(pixels, str) else verb_of_input(given)
            yield f"input: the weights {verb} {expected} already; the stem is unchanged"
        if pixels is None and have != usual:
            yield (
                f"input: the weights {verb_of_input(given)} {have}, {target.name}'s mostly {usual}; the stem is "
                f"unchanged, pixels={target.pixels!r} (--pixels {target.pixels}) converts it"
            )
    stride = given.stride_in_1x1()
    if stride != target.stride_in_1x1:
        where = {True: "in the first 1x1", False: "in the 3x3", None: "in the first 1x1 or the 3x3"}[stride]
        probably = "" if stride is None or given.knows("stride_in_1x1") else "probably "
        yield f"stride: bottlenecks of these weights {probably}stride {where}; the model must do as their own"
    assumed = given.assumed_eps()
    changed = any(given.eps(it.rpartition(".")[0]) != target.eps for it in checkpoint.tensors if it.endswith("_var"))
    if assumed is not None and changed:
        yield f"batch norms: {assumed}"
    other = target is not checkpoint.format and MMDETECTION in (target, checkpoint.format)
    if other and "fpn.p7.weight" in checkpoint.tensors:
        yield "mmdetection's P7 has a ReLU before it only with relu_before_extra_convs, the others' always"


def _renamed(
    given: Source, target: Format, layout: str, asked: str | None
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The weights by the target's keys; the source's keys that are left out; those that the target has no names for.
    ``layout``: the one ``asked`` for, or the source's."""
    checkpoint = given.checkpoint
    values = _with_eps_of(target, given) if target is not CAFFE2 else _folded(given)
    prefixes = target.prefixes[layout]
    if target is DETECTRON2 and "fpn" not in checkpoint.components:
        prefixes = (prefixes[0].removesuffix("bottom_up."), *prefixes[1:])
    outside: tuple[str, ...] = () if asked in (None, "classifier") else ("classifier",)
    if layout == "classifier" and (asked or target is not CAFFE2):  # Caffe2's files have one layout for all
        outside = ("fpn", "head")
    weights: dict[str, Tensor] = {}
    left_out, nameless = [], []
    for name, value in values.items():
        part = component_of(name)
        is_outside = part in outside
        key = None if is_outside else _key(name, values, target, given, prefixes)
        if key is not None:
            weights[key] = value
        elif name.endswith(".num_batches_tracked") or part == "classifier" or is_outside:
            left_out.append(checkpoint.keys[name])
        else:
            nameless.append(checkpoint.keys[name])
    for key, value in checkpoint.foreign.items():
        # A classifier's last layers where they are several, or a detector's RPN and heads.
        belongs_to = "classifier" if checkpoint.layout == "classifier" and key.startswith("fc.") else "detector"
        if target is checkpoint.format and asked in (None, belongs_to):
            weights[key] = value
        else:
            left_out.append(checkpoint.other_keys[key])
    return weights, left_out, nameless


def _wrapped(
    weights: dict[str, Tensor], given: Source, target: Format, pixels: str | Sequence[str] | None
) -> dict[str, Any]:
    """The content of a file with ``weights``, with what the target's library has around them."""
    if target.wrapper is None:
        return weights
    noted: dict[str, Any] = {"pixels": given.pixels if pixels is None else _name_of(pixels)}
    stride = given.stride_in_1x1()
    if stride is not None:
        noted["stride_in_1x1"] = stride
    asked = () if pixels is None else ("pixels",)
    assumed = [it for it in noted if it not in asked and not given.knows(it)]
    if assumed:
        noted["assumed"] = assumed
    return {target.wrapper: weights, **copy.deepcopy(target.extras), CONVENTIONS: noted}


def convert_file(source: Any, path: str | os.PathLike[str], to: str, **options: Any) -> Conversion:
    """:func:`convert` into a file.

    Args:
        source, to: as for :func:`convert`.
        path: the file; one that exists is replaced. Its ending decides the format: safetensors for .safetensors, a
            pickle for .pkl and Caffe2, else torch's.
        **options: ``layout``, ``eps`` and ``pixels`` of :func:`convert`.

    Returns:
        The :class:`Conversion`.

    Raises:
        ValueError, TypeError: as :func:`convert`; ValueError also if the file cannot be written.
    """
    conversion = convert(source, to, **options)
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending == ".safetensors":
        files.write(conversion.weights, path, "safetensors")
    elif to == "caffe2" or ending == ".pkl":
        files.write(conversion.content, path, "pickle")
    else:
        files.write(conversion.content, path, "torch")
    return conversion


_LEAVES = ("weight", "bias", "running_mean", "running_var")


def _check_values(label: str, given: Source, target: Format) -> None:
    checkpoint = given.checkpoint
    named = [(checkpoint.keys[name], name, value) for name, value in checkpoint.tensors.items()]
    named += [(checkpoint.other_keys[key], "", value) for key, value in checkpoint.foreign.items()]
    for key, name, value in named:
        if value.is_meta or not is_dense(value):
            raise ValueError(f"convert: {label}: {key} is not a dense tensor of real numbers")
        if value.dtype in FLOATS:
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"convert: {label}: {key} has NaN or infinite values")
        elif name and not name.endswith(".num_batches_tracked"):
            raise ValueError(f"convert: {label}: {key} is of {str(value.dtype)[6:]}; it must be floating-point")
        norm, _, leaf = name.rpartition(".")
        if leaf != "running_var":
            continue
        if bool((value.double() + given.eps(norm) < 0).any()):
            raise ValueError(f"convert: {label}: {key} has negative variances")
        tensors = [checkpoint.tensors.get(f"{norm}.{it}") for it in _LEAVES]
        is_whole = all(it is not None and it.shape == value.shape for it in tensors)
        if not is_whole and (target is CAFFE2 or target.eps != given.eps(norm)):
            raise ValueError(f"convert: {label}: the norm of {key} must have {', '.join(_LEAVES)}, of one shape")


def _with_eps_of(target: Format, given: Source) -> dict[str, Tensor]:
    """The source's tensors, with weights and variances for the target's epsilon."""
    tensors = given.checkpoint.tensors
    values = dict(tensors)
    for name, variance in tensors.items():
        norm, _, leaf = name.rpartition(".")
        weight = tensors.get(f"{norm}.weight")
        if leaf != "running_var" or weight is None:
            continue
        # A variance that is wider than its weight is one that was converted before, and gets its dtype back.
        dtype = weight.dtype if variance.dtype == torch.float64 else torch.float64
        values[f"{norm}.weight"], values[name] = with_eps(weight, variance, given.eps(norm), target.eps, dtype)
    return values


def _folded(given: Source) -> dict[str, Tensor]:
    """Caffe2's: each batch norm as scale and shift."""
    tensors = given.checkpoint.tensors
    values = {}
    for name, value in tensors.items():
        norm, _, leaf = name.rpartition(".")
        variance = tensors.get(f"{norm}.running_var")
        if variance is None:
            values[name] = value
            continue
        if leaf not in ("weight", "bias"):
            continue
        mean, eps = tensors[f"{norm}.running_mean"], given.eps(norm)
        is_folded = eps == 0 and not mean.any() and bool((variance == 1).all())
        scale_and_shift = folded(tensors[f"{norm}.weight"], tensors[f"{norm}.bias"], mean, variance, eps)
        values[name] = value if is_folded else scale_and_shift[("weight", "bias").index(leaf)]
    return values


def _name_of(pixels: str | Sequence[str]) -> str:
    return pixels if isinstance(pixels, str) else pixels[1]


def _key(
    name: str,
    values: Mapping[str, Tensor],
    target: Format,
    given: Source,
    prefixes: tuple[str, str, str],
) -> str | None:
    part = component_of(name)
    prefix = {"body": prefixes[0], "classifier": prefixes[0], "fpn": prefixes[1], "head": prefixes[2]}[part]
    rules = "body" if part == "head" else part
    context = given.checkpoint.context
    for spelling in (_special(name.removeprefix("head."), values), name.removeprefix("head.")):
        key = None if spelling is None else target.write(spelling, rules, context)
        if key is not None:
            return prefix + key
    return None


def _special(name: str, values: Mapping[str, Tensor]) -> str | None:
    """The name that some formats spell differently: a deformable convolution, a pyramid's convolution with a norm."""
    block = re.match(r"(res\d\.\d+)\.conv2\.", name)
    if block and f"{block.group(1)}.offset.weight" in values:
        return name.replace(".conv2.", ".deform.")
    level = re.match(r"(fpn\.(?:inner|outer)\d)\.conv\.", name)
    if level and any(f"{level.group(1)}.{norm}.weight" in values for norm in ("norm", "gn")):
        return name.replace(".conv.", ".normed.")
    return None
