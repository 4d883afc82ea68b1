"""Recognises the keys of a file or a model: neutral names for the backbone, and the remaining keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from resnet_cuda.weights.formats import (
    CAFFE2,
    DETECTRON2,
    FORMATS,
    MASKRCNN_BENCHMARK,
    MMDETECTION,
    TORCHVISION,
    Context,
    Format,
)
from resnet_cuda.weights.formats.templates import group_norm_name
from resnet_cuda.weights.reparametrized import advice

# What wrappers put before every key: DDP, DataParallel, torch.optim.swa_utils.AveragedModel.
_WRAPPER_PREFIX = re.compile(r"^(?:module\.)+")
# What stands in the names of a part's tensors where the part alone was wrapped: by torch.compile, activation
# checkpointing, FSDP.
WRAPPED_PARTS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_STATISTIC = re.compile(r"\.running_(?:mean|var)$")
# A body's own parts. Other names beside them are a classifier's or a detector's.
_PART_OF_BODY = re.compile(r"(?:stem|conv|bn|gn|norm|relu|act|layer|res|attnpool|downsample)\d*(?:[._]|$)")
# mmdetection's bodies have torchvision's names; its detectors' other parts tell.
_MMDETECTIONS = re.compile(r"(?:.*\.)?(?:neck|rpn_head|roi_head|bbox_head|panoptic_head|data_preprocessor)\.")
# Whose lateral convolutions are not those of the detector's pyramid.
_OTHER_PYRAMID = re.compile(r"(?:.*\.)?(?:\w+_head|pixel_decoder)\.")


class UnknownKeysError(ValueError):
    """No known format has these keys, or several prefixes are possible."""


@dataclass
class Checkpoint:
    """Weights by neutral name (see :mod:`resnet_cuda.weights.formats.templates`).

    Attributes:
        format: the format of the keys.
        tensors: by neutral name.
        keys: the key of each neutral name.
        foreign: tensors outside the backbone (RPN, RoI heads), by their key within the detector.
        unknown: tensors inside the backbone under names that the format does not have, likewise.
        context: the values on which the format's numbering depends.
        layout: "classifier", "backbone" or "detector": the nesting of the body in its model.
        alike: other formats that fit the names equally well.
        spare: keys of duplicate tensors, with their neutral names.
        errors: the reasons why the keys are ambiguous.
        other_keys: the whole key of each entry of ``foreign`` and ``unknown``.
        unknown_parts: the component that contains each entry of ``unknown``.
    """

    format: Format
    tensors: dict[str, Tensor]
    keys: dict[str, str]
    foreign: dict[str, Tensor]
    unknown: dict[str, Tensor]
    context: Context
    layout: str
    alike: list[Format] = field(default_factory=list)
    spare: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    other_keys: dict[str, str] = field(default_factory=dict)
    unknown_parts: dict[str, str] = field(default_factory=dict)

    @property
    def components(self) -> set[str]:
        return {component_of(name) for name in self.tensors}


def component_of(name: str) -> str:
    """ "body", "fpn", "classifier" or "head", of a neutral name."""
    first = name.split(".", 1)[0]
    return first if first in ("fpn", "classifier", "head") else "body"


def recognise(
    tensors: Mapping[str, Tensor],
    *,
    heads: Iterable[str] = (),
    like: Checkpoint | None = None,
    prefer: Format | None = None,
    is_model: bool = False,
) -> Checkpoint:
    """Reads ``tensors`` with the format that explains most of the keys.

    Args:
        heads: prefixes of C5 heads, needed where the keys are ambiguous (a ResNetHead alone has a body's names).
        like: the model that the tensors will be loaded into. It resolves ambiguities: torchvision's or
            maskrcnn-benchmark's names if there is no stem, and the first level of a pyramid without a body.
        prefer: the format to choose if it fits.
        is_model: whether the tensors are a model's own; a last stage that several heads have is then filled in each.

    Raises:
        UnknownKeysError: if no format explains any key, or there are two bodies (such as a student and a teacher).
    """
    originals: dict[str, str] = {}
    for key in tensors:
        other = originals.setdefault(_without_wrappers(key), key)
        if other != key:
            raise UnknownKeysError(
                f"{other} and {key} differ only in what a wrapper adds to names: module, {', '.join(WRAPPED_PARTS)}"
            )
    plain = {name: tensors[key] for name, key in originals.items()}
    heads = [_without_wrappers(head) for head in heads]
    found = [_read(it, plain, heads, like, is_model) for it in FORMATS.values()]
    most = max(len(it.tensors) for it in found)
    if most == 0:
        first = ", ".join(list(tensors)[:5]) or "there are none"
        hint = advice(tensors, is_model)
        raise UnknownKeysError(
            f"no key is one of a ResNet backbone as {', '.join(FORMATS)} or timm name them; the first keys: {first}"
            f"{'' if hint is None else f'. {hint}'}"
        )
    equals = [it for it in found if len(it.tensors) == most]
    best = _chosen(equals, plain, like, prefer)
    if best.errors:
        raise UnknownKeysError(best.errors[0])
    best.alike = [it.format for it in equals if it is not best]
    best.keys = {name: originals[key] for name, key in best.keys.items()}
    best.other_keys = {name: originals[key] for name, key in best.other_keys.items()}
    best.spare = {originals[key]: name for key, name in best.spare.items()}
    return best


def _without_wrappers(key: str) -> str:
    *parts, leaf = key.split(".")
    return _WRAPPER_PREFIX.sub("", ".".join([*(part for part in parts if part not in WRAPPED_PARTS), leaf]))


def _chosen(
    equals: list[Checkpoint], plain: Mapping[str, Tensor], like: Checkpoint | None, prefer: Format | None
) -> Checkpoint:
    by_format = {id(it.format): it for it in equals}
    wanted = [prefer]
    if any(_MMDETECTIONS.match(key) for key in plain):
        wanted.append(MMDETECTION)
    if like is not None and like.format is MASKRCNN_BENCHMARK:
        wanted.append(MASKRCNN_BENCHMARK)
    return next((by_format[id(it)] for it in wanted if id(it) in by_format), equals[0])


def _read(
    it: Format, tensors: Mapping[str, Tensor], heads: list[str], like: Checkpoint | None, is_model: bool
) -> Checkpoint:
    """Reads on where something is there twice, so that the format that explains most is known; see ``errors``."""
    errors: list[str] = []
    body, head = _body_prefixes(it, tensors, heads, errors)
    within = _root(it, body, None)
    pyramids = _prefixes(it.fpn_anchor, tensors)
    fpn = _only(
        it, "pyramid", [prefix for prefix in pyramids if not _OTHER_PYRAMID.match(prefix.removeprefix(within))], errors
    )
    context = Context()
    prefixes = [(prefix, "head") for prefix in head]
    prefixes += [(fpn, "fpn")] if fpn is not None else []
    prefixes += [(body, "body"), (body, "classifier")] if body is not None else []
    prefixes.sort(key=lambda entry: -len(entry[0]))  # detectron2's pyramid is around its body
    if fpn is not None:
        context = _context(it, tensors, body, fpn, like)
    root = _root(it, body, fpn)
    found = Checkpoint(it, {}, {}, {}, {}, context, _layout(it, root, body, fpn), errors=errors)
    for key, tensor in tensors.items():
        name = _name(it, key, tensor, prefixes, context)
        if name is None:
            short = key.removeprefix(root)
            if short in found.other_keys:
                short = key
            part = _part_within(it, key, prefixes)
            (found.foreign if part is None else found.unknown)[short] = tensor
            found.other_keys[short] = key
            if part is not None:
                found.unknown_parts[short] = part
        elif name not in found.tensors:
            found.tensors[name], found.keys[name] = tensor, key
        else:
            # Mask and keypoint heads of a C4 detector share the box head's last stage.
            found.spare[key] = name
            if not name.startswith("head.") or not (is_model or _are_equal(tensor, found.tensors[name])):
                errors.append(f"{found.keys[name]} and {key} are both {name}")
    _rename(found, _settled)
    if it is not CAFFE2:
        _rename(found, _group_norms(found))
    found.context = replace(context, block_counts=_block_counts(found))
    levels = {int(match.group(1)) for match in map(re.compile(r"fpn\.inner(\d)\.").match, found.tensors) if match}
    if levels:  # for writing: formats that name levels by their numbers read them without a context
        found.context = replace(found.context, first_level=min(levels), laterals=len(levels))
    return found


def _name(it: Format, key: str, tensor: Tensor, prefixes: list[tuple[str, str]], context: Context) -> str | None:
    for prefix, component in prefixes:
        if not key.startswith(prefix):
            continue
        name = it.read(key[len(prefix) :], "body" if component == "head" else component, context, tensor.dim())
        if name is None or (component == "head" and not name.startswith("res")):
            continue
        return f"head.{name}" if component == "head" else name
    return None


def _part_within(it: Format, key: str, prefixes: list[tuple[str, str]]) -> str | None:
    """The component that a key is in which no rule reads: part of another network than a ResNet. None: in none."""
    if it is CAFFE2:
        return "body" if re.match(r"res\d|fpn_(?:inner|res)|nonlocal_", key) else None
    for prefix, component in prefixes:
        if component == "fpn" and prefix and key.startswith(prefix):
            return "fpn"
        if component == "body" and key.startswith(prefix) and _PART_OF_BODY.match(key[len(prefix) :]):
            return "body"
    return None


def _are_equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one is other or one.is_meta or other.is_meta or bool(torch.equal(one, other))


def _prefixes(anchor: re.Pattern[str], tensors: Mapping[str, Tensor]) -> dict[str, list[re.Match[str]]]:
    """What stands before an anchor in the keys that end with it: nothing, or names with dots."""
    found: dict[str, list[re.Match[str]]] = {}
    pattern = re.compile(rf"(?P<prefix>(?:[^.]+\.)*?)(?:{anchor.pattern})")
    for key in tensors:
        match = pattern.fullmatch(key)
        if match:
            found.setdefault(match.group("prefix"), []).append(match)
    return found


def _body_prefixes(
    it: Format, tensors: Mapping[str, Tensor], heads: list[str], errors: list[str]
) -> tuple[str | None, list[str]]:
    """The body's prefix and those of C5 heads, which have that stage only, beside or without a body."""
    found = _prefixes(it.anchor, tensors)
    last = "5" if it in (DETECTRON2, CAFFE2) else "4"
    only_last = [prefix for prefix, matches in found.items() if {match.group("stage") for match in matches} == {last}]
    head = [prefix for prefix in found if prefix in heads]
    if len(found) > 1:
        head += [prefix for prefix in only_last if prefix not in head]
    body = _only(it, "body", [prefix for prefix in found if prefix not in head], errors)
    return body, head


def _only(it: Format, what: str, prefixes: Iterable[str], errors: list[str]) -> str | None:
    """The first; an error where there are others."""
    prefixes = list(prefixes)
    if len(prefixes) > 1:
        errors.append(
            f"there are {len(prefixes)} of a {what} with {it.name}'s names, at "
            f"{', '.join(repr(prefix) for prefix in prefixes[:5])}; keep the keys of one"
        )
    return prefixes[0] if prefixes else None


def _context(it: Format, tensors: Mapping[str, Tensor], body: str | None, fpn: str, like: Checkpoint | None) -> Context:
    """Which level is the first, from the channels that its lateral convolution reads."""
    laterals: dict[int, int] = {}
    for match in _prefixes(it.fpn_anchor, tensors)[fpn]:
        key = match.group(0)
        if re.search("inner|lateral", key.removeprefix(fpn)):
            tensor = tensors[key]
            laterals[int(match.group("i"))] = tensor.shape[1] if tensor.dim() == 4 else 0
    if not laterals:
        return Context()
    count = max(laterals) + 1
    first = max(2, 6 - count)  # the last level is mostly C5
    if body is None and like is not None and "fpn" in like.components:
        first = like.context.first_level
    for stage, out in _stage_channels(it, tensors, body or "").items():
        if out == laterals.get(0):
            first = stage
    return Context(first_level=first, laterals=count)


def _stage_channels(it: Format, tensors: Mapping[str, Tensor], body: str) -> dict[int, int]:
    """Output channels by stage: those of a block's last convolution."""
    channels: dict[int, tuple[int, int]] = {}
    for key, tensor in tensors.items():
        name = it.read(key[len(body) :], "body", Context(), tensor.dim()) if key.startswith(body) else None
        match = re.fullmatch(r"res([2-5])\.0\.conv([123])\.weight", name or "")
        if match and tensor.dim() == 4:
            stage, k = int(match.group(1)), int(match.group(2))
            channels[stage] = max(channels.get(stage, (0, 0)), (k, tensor.shape[0]))
    return {stage: out for stage, (_, out) in channels.items()}


def _layout(it: Format, root: str, body: str | None, fpn: str | None) -> str:
    prefix = body if body is not None else fpn or ""
    if fpn is None and prefix == root:
        return "classifier"
    return "detector" if it is MMDETECTION or "backbone." in prefix else "backbone"


def _root(it: Format, body: str | None, fpn: str | None) -> str:
    """What stands before every key of the detector: a Lightning module's ``model.``, say."""
    known = {prefix for bodies, pyramids, _ in it.prefixes.values() for prefix in (bodies, pyramids)} | {"backbone."}
    prefix = body if body is not None else fpn or ""
    ending = max((end for end in known if prefix.endswith(end)), key=len, default="")
    return prefix.removesuffix(ending)


def _rename(found: Checkpoint, rule: Callable[[str, Checkpoint], str]) -> None:
    renamed = {name: rule(name, found) for name in found.tensors}
    found.tensors = {renamed[name]: tensor for name, tensor in found.tensors.items()}
    found.keys = {renamed[name]: key for name, key in found.keys.items()}


def _settled(name: str, found: Checkpoint) -> str:
    """A deep stem's last norm, which timm names as that of a plain stem."""
    if name.startswith("stem.norm.") and "stem.0.conv.weight" in found.tensors and found.format is TORCHVISION:
        return name.replace("stem.norm.", "stem.2.norm.")
    return name


def _group_norms(found: Checkpoint) -> Callable[[str, Checkpoint], str]:
    """Renames the norms of a component that has no statistics at all: they are group norms."""
    with_statistics = {component_of(name) for name in found.tensors if _STATISTIC.search(name)}

    def rename(name: str, _: Checkpoint) -> str:
        return name if component_of(name) in with_statistics else _group_norm(name)

    return rename


def _group_norm(name: str) -> str:
    stem, leaf = name.rsplit(".", 1)
    return f"{group_norm_name(stem)}.{leaf}"


def _block_counts(found: Checkpoint) -> dict[int, int]:
    counts: dict[int, int] = {}
    for name in found.tensors:
        match = re.match(r"res([2-5])\.(\d+)\.", name)
        if match:
            stage = int(match.group(1))
            counts[stage] = max(counts.get(stage, 0), int(match.group(2)) + 1)
    return counts
