"""load_weights: loads weights of any known library into any model whose backbone has known names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda._arguments import flag
from resnet_cuda.weights import matching, sources
from resnet_cuda.weights.hints import hints
from resnet_cuda.weights.notes import conventions, converted_stem
from resnet_cuda.weights.recognised_source import Source
from resnet_cuda.weights.report import LoadReport, summary
from resnet_cuda.weights.target import Target
from resnet_cuda.weights.values import is_wrapper


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Any] | nn.Module,
    strict: bool = True,
    *,
    eps: float | None = None,
    pixels: str | Sequence[str] | None = None,
    compensate_mask: bool = True,
) -> LoadReport:
    """Loads ``source`` into ``model``, translating between libraries' parameter names. On an error nothing is loaded.

    The format is recognised by the keys. A different epsilon is compensated in the statistics (or, if a variance is too
    small, in the weight), so the outputs are those of the source's library. A plain convolution's weight is loaded into
    a deformable convolution, whose offsets stay 0. Nothing in a file is executed.

    Args:
        model: of :func:`resnet_cuda.build_backbone`, :func:`resnet_cuda.resnet_fpn_backbone`, ``ResNet``,
            ``ResNetHead``, or any model, such as a torchvision detector, that contains one or has the names of
            torchvision, timm, maskrcnn-benchmark, detectron2 or mmdetection.
        source: a path, a URL, ``hf://owner/name/file``, a torchvision weights enum or its full name, a state dict
            (also wrapped as in files), or a model. See :func:`resnet_cuda.weights.sources.resolve`.
        strict: raise if a key of the source's backbone has no counterpart in the model, or vice versa. A whole part
            that the source does not have (a classifier has no pyramid) stays as it is and is reported.
        eps: epsilon of the source's batch norms; None for its library's: 0 for maskrcnn-benchmark, Caffe2 and
            torchvision's published version 1 detectors except FCOS, else 1e-5. A detector other than FCOS that was
            built with torchvision's ``weights="COCO_V1"`` and saved again has 0: pass ``eps=0``.
        pixels: the convention of the model's input, "torchvision", "detectron2", "caffe2", "maskrcnn-benchmark" or
            "mmdetection" (:data:`resnet_cuda.weights.conventions.PIXELS`): the stem is converted to that colour order
            and scale. A pair is (the source's, the model's). None leaves the stem as it is.
        compensate_mask: double the weight of a modulated (v2) deformable layer that gets a plain convolution's weight:
            its masks start at 0.5, so its output then equals the convolution's.

    Returns:
        A :class:`~resnet_cuda.weights.report.LoadReport`, which prints as a short table.

    Warns:
        UserWarning: if outputs may differ from those of the source's own network (input pixels, place of a stride or
            ReLU, ...), or if only the backbone of a detector was loaded. The report's notes have the same text.

    Raises:
        ValueError: for a file that cannot be read, unknown keys, wrong shapes, NaN, and violations of ``strict``. The
            model is unchanged.
        TypeError: for a model that is not a module, or a source of another type.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"load_weights: model is {type(model).__name__}; it must be a torch.nn.Module")
    strict = flag("load_weights", "strict", strict)
    compensate_mask = flag("load_weights", "compensate_mask", compensate_mask)
    eps = checked_eps("load_weights", eps)
    content, label = sources.resolve(source)
    return load_content(
        model,
        content,
        label,
        strict,
        source_model=source if isinstance(source, nn.Module) else None,
        eps=eps,
        pixels=pixels,
        compensate_mask=compensate_mask,
    )


def load_content(
    model: nn.Module,
    content: Mapping[str, Any],
    label: str,
    strict: bool = True,
    *,
    source_model: nn.Module | None = None,
    eps: float | None = None,
    pixels: str | Sequence[str] | None = None,
    compensate_mask: bool = True,
) -> LoadReport:
    """:func:`load_weights` of content that has been read from ``label``; ``source_model``: the model it is from."""
    target = Target.of(model)
    _refuse_wrappers(target, target.checkpoint.keys.values())
    given, report = Source.of(content, label, "load_weights", source_model, eps, target.checkpoint)
    given.checkpoint.tensors.update(converted_stem(given, pixels, report, "load_weights"))
    match = matching.match(target, given, report, compensate_mask)
    refused = match.wrong + (match.refused if strict else [])
    if refused:
        advice = "".join(f". {it}" for it in hints(target, given, refused))
        raise ValueError(
            f"{label} does not fit the {type(model).__name__}, which is unchanged; {_problems(refused)}{advice}"
        )
    _refuse_wrappers(target, match.values)
    _refuse_tied(target.model.state_dict(), match.values, label)
    alarms = match.alarms + conventions(target, given, pixels, report)
    report.notes += alarms
    _write(target, match.values)
    for alarm in alarms:
        warnings.warn(f"load_weights: {label}: {alarm}", stacklevel=3)
    return report


def _problems(problems: list[tuple[str, str]]) -> str:
    kinds: dict[str, list[str]] = {}
    for kind, key in problems:
        kinds.setdefault(kind, []).append(key)
    return "; ".join(
        f"{kind}: {', '.join(keys[:5])}{f' and {len(keys) - 5} more ({summary(keys)})' if len(keys) > 5 else ''}"
        for kind, keys in kinds.items()
    )


def checked_eps(where: str, eps: object) -> float | None:
    """``eps`` as a float, or None."""
    if eps is None:
        return None
    if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 <= eps < 1:
        raise ValueError(f"{where}: eps is {eps!r}; it must be None or a number from 0 to below 1")
    return float(eps)


def _write(target: Target, values: Mapping[str, Tensor]) -> None:
    """Copies all ``values``, by the model's keys, or restores what was there."""
    state = target.model.state_dict()
    before: dict[str, Tensor] = {}
    with torch.no_grad():
        try:
            for key, value in values.items():
                before[key] = state[key].clone()
                state[key].copy_(value)
            _check_written(target.model, state, values)
        except BaseException:
            for key, value in reversed(before.items()):  # of tensors that share memory the first is the old value
                state[key].copy_(value)
            raise


def _refuse_wrappers(target: Target, keys: Iterable[str]) -> None:
    """Tensors of the model that are of a subclass whose values are elsewhere: a copy into them may write a part."""
    state = target.model.state_dict()
    for key in keys:
        place = state[key]
        if not is_wrapper(place):
            continue
        kind = type(place).__name__
        if hasattr(place, "full_tensor"):
            advice = (
                "load the weights before torch.distributed.fsdp.fully_shard or distribute_tensor, or load them into a "
                "model that is not sharded and give its state dict to "
                "torch.distributed.checkpoint.state_dict.set_model_state_dict"
            )
        else:
            advice = "load the weights before the model's tensors are replaced by such"
        raise ValueError(
            f"load_weights: {key} of the {type(target.model).__name__} is a {kind}, whose values are in other tensors; "
            f"{advice}"
        )


def _refuse_tied(state: Mapping[str, Tensor], values: Mapping[str, Tensor], label: str) -> None:
    """Tensors of the model that are one, for which the source has different values."""
    seen: dict[tuple[Any, ...], str] = {}
    for key, value in values.items():
        place = state[key]
        if place.numel() == 0:
            continue
        other = seen.setdefault((place.data_ptr(), place.shape, place.stride(), place.device), key)
        if other != key and not torch.equal(values[other].to(place.dtype), value.to(place.dtype)):
            raise ValueError(f"{label}: {other} and {key} are one tensor in the model and differ in the source")


def _check_written(model: nn.Module, state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """A hook, or a state_dict of a model's own, may have given copies."""
    now = model.state_dict()
    for key in values:
        if now[key].data_ptr() != state[key].data_ptr() and not torch.equal(now[key], state[key]):
            raise ValueError(
                f"load_weights: state_dict() of the {type(model).__name__} gives copies, {key} for one; "
                "what is written into them does not reach the model"
            )
