"""Matches the tensors of a source with those of a model, and finds those without a counterpart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from resnet_cuda.stem_weights import adapt_stem_weight
from resnet_cuda.weights.checkpoint import component_of
from resnet_cuda.weights.formats import CAFFE2
from resnet_cuda.weights.legacy import present_key
from resnet_cuda.weights.norms import with_eps
from resnet_cuda.weights.recognised_source import Source
from resnet_cuda.weights.report import LoadReport, summary
from resnet_cuda.weights.target import Target
from resnet_cuda.weights.values import FLOATS, is_dense

_COUNTER = ".num_batches_tracked"
# What detectors keep beside their weights, in some versions only: detectron2's statistics and anchors.
_NO_WEIGHT = re.compile(r"\.num_batches_tracked$|(?:^|\.)pixel_(?:mean|std)$|\.cell_anchors\.\d+$")
_OF_A_DETECTOR = re.compile(
    r"rpn|roi_|proposal_generator|bbox|mask_head|keypoint|anchor|(?:classification|regression)_head"
)
_STEM_CONVOLUTIONS = ("stem.conv.weight", "stem.0.conv.weight")


@dataclass
class Match:
    """The result of :func:`match`.

    Attributes:
        values: the values to write, by the model's keys.
        refused: (kind, key) of the entries that strict loading rejects.
        wrong: (kind, key) of the entries that any loading rejects.
        alarms: warnings for the caller.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)


def match(target: Target, source: Source, report: LoadReport, compensate_mask: bool) -> Match:
    """Matches the backbone by neutral name, and a detector's other parts by key; fills ``report``."""
    result = Match()
    used = _match_backbone(target, source, report, result)
    _sort_missing(target, source, report, result, used)
    _sort_unexpected(target, source, report, result, used)
    report.ignored += source.checkpoint.spare
    _fill_twins(target, report, result)
    _match_foreign(target, source, report, result)
    _match_unknown(target, source, report, result)
    if compensate_mask:
        _double_modulated(target, source, report, result)
    return result


def _match_backbone(target: Target, source: Source, report: LoadReport, result: Match) -> dict[str, str]:
    """Writes values; returns the source's name of each of the target's names that has one."""
    given, wanted = source.checkpoint, target.checkpoint
    has_head = "head" in given.components
    used: dict[str, str] = {}
    for name, place in wanted.tensors.items():
        origin = name
        if component_of(name) == "head" and not has_head:
            origin = name.removeprefix("head.")  # a classifier's last stage starts a C4 detector's head
        if origin not in given.tensors:
            continue
        used[name] = origin
        _take(wanted.keys[name], place, given.keys[origin], given.tensors[origin], name, report, result)
    for name, origin in used.items():
        if name.endswith(".running_var"):
            _match_epsilon(name.rpartition(".")[0], origin.rpartition(".")[0], target, source, result)
    return used


def _take(key: str, place: Tensor, origin: str, value: Tensor, name: str, report: LoadReport, result: Match) -> None:
    """Checks one tensor and keeps it, with its own dtype, as the value of ``key``."""
    if place.is_meta or value.is_meta:
        where = key if place.is_meta else origin
        result.wrong.append(("without data, on the meta device", where))
        return
    if not is_dense(value):
        result.wrong.append(("not a dense tensor of real numbers", origin))
        return
    if name.endswith(_COUNTER):
        value = value.to(place.dtype)
    if place.is_floating_point() != value.is_floating_point() or value.dtype not in (*FLOATS, place.dtype):
        result.wrong.append((f"of {str(value.dtype).removeprefix('torch.')}", origin))
        return
    if value.shape != place.shape:
        fitted = _reshaped(name, value, place)
        if fitted is None:
            shapes = f"{origin} {tuple(value.shape)} for {key} {tuple(place.shape)}"
            result.refused.append(("of another shape", shapes))
            report.unexpected.append(origin)
            report.missing.append(key)
            return
        value = fitted
        report.reshaped.append(key)
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        result.wrong.append(("with NaN or infinite values", origin))
        return
    narrower = value.is_floating_point() and torch.finfo(place.dtype).max < torch.finfo(value.dtype).max
    if narrower and not bool(torch.isfinite(value.to(place.dtype)).all()):
        result.wrong.append((f"beyond the largest {str(place.dtype).removeprefix('torch.')}", origin))
        return
    report.loaded.append(key)
    result.values[key] = value


def _reshaped(name: str, value: Tensor, place: Tensor) -> Tensor | None:
    """``value`` in the shape of ``place``: a stem for other input channels, dimensions of size 1 left out or added."""
    if name in _STEM_CONVOLUTIONS and value.dim() == 4 and place.dim() == 4 and value.shape[1] == 3:
        adapted = adapt_stem_weight(value, place.shape[1])
        return adapted if adapted.shape == place.shape else None
    if value.numel() == place.numel() and [n for n in value.shape if n != 1] == [n for n in place.shape if n != 1]:
        return value.reshape(place.shape)
    return None


def _match_epsilon(norm: str, origin: str, target: Target, source: Source, result: Match) -> None:
    keys = target.checkpoint.keys
    weight_key, variance_key = keys.get(f"{norm}.weight"), keys[f"{norm}.running_var"]
    if variance_key not in result.values or (weight_key is not None and weight_key not in result.values):
        return
    variance = result.values[variance_key]
    # A norm that is not affine has no weight: then only the variance can change.
    weight = torch.ones_like(variance) if weight_key is None else result.values[weight_key]
    given, wanted = source.eps(origin), target.eps(norm)
    if bool((variance.double() + given < 0).any()):
        result.wrong.append(("negative variances", source.checkpoint.keys[f"{origin}.running_var"]))
        return
    # Where the model's dtype is wider than the file's the sum is rounded in the model's.
    state = target.checkpoint.tensors[f"{norm}.running_var"]
    wide = torch.promote_types(variance.dtype, state.dtype)
    if given != wanted:
        weight, variance = with_eps(weight.to(wide), variance.to(wide), given, wanted)
    result.values[variance_key] = variance
    if weight_key is not None:
        result.values[weight_key] = weight
    elif not bool((weight == 1).all()):
        result.wrong.append(
            ("of a variance too small for the model's epsilon", source.checkpoint.keys[f"{origin}.running_var"])
        )


def _sort_missing(target: Target, source: Source, report: LoadReport, result: Match, used: dict[str, str]) -> None:
    given, wanted = source.checkpoint, target.checkpoint
    parts = given.components
    absent_parts: set[str] = set()
    plain_layers: list[str] = []
    for name, key in wanted.keys.items():
        if name in used or name.endswith(_COUNTER):
            continue
        report.missing.append(key)
        part = component_of(name)
        block, _, leaf = name.partition(".offset.")
        if leaf and f"{block}.conv2.weight" in used and not _has_offsets(given.tensors, block):
            plain_layers.append(block)
            report.new_offsets.append(key)
        elif part != "body" and part not in parts and not (part == "head" and _has_stage_5(used)):
            absent_parts.add(part)
        else:
            result.refused.append(("missing", key))
    blocks = sorted(set(plain_layers))
    moving = [block for block in blocks if not target.has_zero_offsets(block)]
    if blocks:
        report.notes.append(
            f"{len(blocks)} deformable layers got a plain convolution's weight; the convolutions that predict their "
            f"offsets stay as they are{', at 0' if not moving else ''}"
        )
    if moving:
        result.alarms.append(
            f"{len(moving)} deformable layers got a plain convolution's weight, and offsets of them are not 0 in the "
            "model: other results than the plain network's"
        )
    for part in sorted(absent_parts):
        named = {"fpn": "pyramid", "head": "C5 head", "classifier": "classifier"}[part]
        report.notes.append(f"the source has no {named}; the model's stays as it is")


def _has_offsets(tensors: dict[str, Tensor], block: str) -> bool:
    return f"{block}.offset.weight" in tensors or f"{block.removeprefix('head.')}.offset.weight" in tensors


def _has_stage_5(used: dict[str, str]) -> bool:
    return any(name.startswith("head.") for name in used)


def _sort_unexpected(target: Target, source: Source, report: LoadReport, result: Match, used: dict[str, str]) -> None:
    given, wanted = source.checkpoint, target.checkpoint
    taken = set(used.values())
    stages = {_stage(name) for name in wanted.tensors}
    parts = wanted.components
    for name, key in given.keys.items():
        if name in taken:
            continue
        part, stage = component_of(name), _stage(name)
        synthetic = key.endswith(")")  # a folded norm's statistics, which are in no file
        if (
            name.endswith(_COUNTER)
            or part not in parts
            or (part == "body" and stage is not None and stage not in stages)
            or (given.format is CAFFE2 and name == "stem.conv.bias")
        ):
            if not synthetic and not name.endswith(_COUNTER):
                report.ignored.append(key)
            continue
        if not synthetic:
            report.unexpected.append(key)
        result.refused.append(("unexpected", key))


def _stage(name: str) -> str | None:
    found = re.match(r"(res[2-5])\.", name)
    return found.group(1) if found else None


def _fill_twins(target: Target, report: LoadReport, result: Match) -> None:
    """A stage that several heads have, each in tensors of its own or in the same, is the same in each."""
    state = target.model.state_dict() if target.checkpoint.spare else {}
    for key, name in target.checkpoint.spare.items():
        value = result.values.get(target.checkpoint.keys[name])
        if value is None or value.shape != state[key].shape:
            report.missing.append(key)
            result.refused.append(("missing", key))
        else:
            result.values[key] = value
            report.loaded.append(key)


def _match_foreign(target: Target, source: Source, report: LoadReport, result: Match) -> None:
    """The other parts of a detector (RPN, RoI heads): by key, between models of one library."""
    given, wanted = dict(source.checkpoint.foreign), target.checkpoint.foreign
    given_keys, wanted_keys = dict(source.checkpoint.other_keys), target.checkpoint.other_keys
    same = source.checkpoint.format is target.checkpoint.format
    for key in list(given) if same else ():
        now = present_key(key)
        if key not in wanted and now in wanted and now not in given:
            given[now], given_keys[now] = given.pop(key), given_keys[key]
    shared = [key for key in wanted if key in given] if same else []
    for key in shared:
        counter = _COUNTER if key.endswith(_COUNTER) else ""
        _take(wanted_keys[key], wanted[key], given_keys[key], given[key], counter, report, result)
    missing = [wanted_keys[key] for key in wanted if key not in shared and not _NO_WEIGHT.search(key)]
    rest = [given_keys[key] for key in given if key not in shared]
    report.missing += missing
    if not shared:
        report.ignored += rest
        if wanted and (
            any(_OF_A_DETECTOR.search(key) for key in given) or ("fpn" in source.checkpoint.components and given)
        ):
            result.alarms.append(
                "of the parts beside the backbone none was loaded: the model's are "
                f"{summary(missing, 2)}, the source's {summary(rest, 2)}"
            )
        return
    unexpected = [key for key in rest if not _NO_WEIGHT.search(key)]
    report.unexpected += unexpected
    report.ignored += [key for key in rest if _NO_WEIGHT.search(key)]
    result.refused += [("missing", key) for key in missing] + [("unexpected", key) for key in unexpected]


def _match_unknown(target: Target, source: Source, report: LoadReport, result: Match) -> None:
    """What a backbone has beside a ResNet's tensors, by key; only the same network has it."""
    given, wanted = source.checkpoint, target.checkpoint
    for key, place in wanted.unknown.items():
        if key in given.unknown:
            counter = _COUNTER if key.endswith(_COUNTER) else ""
            _take(wanted.other_keys[key], place, given.other_keys[key], given.unknown[key], counter, report, result)
        elif not key.endswith(_COUNTER):
            report.missing.append(wanted.other_keys[key])
            result.refused.append(("missing", wanted.other_keys[key]))
    for key in given.unknown:
        whole = given.other_keys[key]
        if key in wanted.unknown:
            continue
        if given.unknown_parts[key] not in wanted.components:
            report.ignored.append(whole)
        else:
            report.unexpected.append(whole)
            result.refused.append(("unexpected", whole))


def _double_modulated(target: Target, source: Source, report: LoadReport, result: Match) -> None:
    """Doubles a plain convolution's weight where it goes into a layer whose masks are 0.5; exact in any dtype."""
    wanted, doubled = target.checkpoint, 0
    for name, key in wanted.keys.items():
        block, _, rest = name.partition(".conv2.")
        if rest != "weight" or key not in result.values or f"{block}.offset.weight" not in wanted.tensors:
            continue
        if (
            not _has_offsets(source.checkpoint.tensors, block)
            and target.has_zero_offsets(block)
            and target.is_modulated(block)
        ):
            result.values[key] = result.values[key] * 2
            doubled += 1
    if doubled:
        report.notes.append(
            f"{doubled} modulated layers: their masks start at 0.5, so their weights were doubled, and their outputs "
            "are those of the plain convolutions (compensate_mask=False to leave them)"
        )
