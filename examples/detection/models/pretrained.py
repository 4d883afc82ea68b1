"""Trained weights into a detector: of torchvision by name, of a file or an address, of a checkpoint of this program."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from torch import nn
from torchvision.models import detection, get_model_weights, get_weight

from detection.models.classes import Names
from detection.models.heads import Heads, fit
from detection.models.options import ModelOptions
from detection.models.summary import summary
from resnet_cuda.weights import sources
from resnet_cuda.weights.checkpoint import Checkpoint, UnknownKeysError, recognise
from resnet_cuda.weights.formats import TORCHVISION
from resnet_cuda.weights.load import load_content
from resnet_cuda.weights.recognised_source import Source
from resnet_cuda.weights.target import Target
from resnet_cuda.weights.unwrap import CONVENTIONS, conventions_of, unwrap

_DETECTORS = {
    "maskrcnn": "MaskRCNN_ResNet50_FPN_Weights",
    "fasterrcnn": "FasterRCNN_ResNet50_FPN_Weights",
    "keypointrcnn": "KeypointRCNN_ResNet50_FPN_Weights",
    "retinanet": "RetinaNet_ResNet50_FPN_Weights",
}
_BARE_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def load_pretrained(
    model: nn.Module,
    options: ModelOptions,
    weights: str | os.PathLike[str] | Enum | Mapping[str, Any] | nn.Module,
    *,
    eps: float | None = None,
) -> str:
    """Loads ``weights`` into ``model``, all that fits; the backbone, and the pyramid where there is one, must fit.

    Of the parts beside the backbone (RPN, RoI heads, RetinaNet's head) those of a torchvision detector are taken layer
    by layer. The last layers, which depend on the classes, are taken where the weights' class names are known (by
    torchvision's enum or a checkpoint of this program) and include all of ``options.class_names``, in any order;
    where the names are not known, by their shapes. What is not taken keeps the values that it has. Other libraries'
    files fill the backbone and the pyramid; a stem for other pixels is converted.

    Args:
        model: of :func:`detection.models.build.build_model` with ``options``.
        weights: a path, an address (``http://``, ``https://``, ``detectron2://``, ``hf://``), a torchvision weights
            enum or its name ("ResNet50_Weights.IMAGENET1K_V2"), a state dict or a module. A bare "DEFAULT" or "COCO_V1"
            is torchvision's detector of ``options.kind`` where there is one with that backbone, and otherwise, as
            "IMAGENET1K_V1" always, its classifier. Of a checkpoint of this program the average (EMA) where it has one.
        eps: of the weights' batch norms where :func:`resnet_cuda.load_weights` would assume another: 0 for a model
            that torchvision built with ``weights="COCO_V1"`` and that was saved again.

    Returns:
        A few lines: what was loaded, what is new, and what to know about it.

    Raises:
        ValueError: for what is no file of weights, cannot be downloaded, or does not fit; the model is unchanged.
        TypeError: for another type of ``weights``.
    """
    source = _member(weights, options) if isinstance(weights, str) else weights
    content, label = sources.resolve(source, argument="weights")
    content, given = _of_own_checkpoint(content)
    if isinstance(source, Enum):
        given = _names(source.meta["categories"][1:], source.meta.get("keypoint_names"))
    source_model = source if isinstance(source, nn.Module) else None
    target = Target.of(model).checkpoint
    heads = Heads(fresh=list(dict.fromkeys(key.rpartition(".")[0] for key in target.foreign)))
    tensors, _, _ = unwrap(content, label)
    try:
        found = recognise(tensors, like=target)
    except UnknownKeysError:
        found = None  # load_content says what is wrong, with the label
    if found is not None:
        _check_channels(found, options, label)
    if found is not None and found.format is TORCHVISION:
        heads = fit(found, target, given, _names(options.class_names, options.keypoint_names))
        if eps is None:  # decided while all keys are there
            eps = _eps(found, source_model)
        of_heads = {found.other_keys[key] for key in found.foreign}
        kept = {key: value for key, value in tensors.items() if key not in of_heads}
        content = {CONVENTIONS: conventions_of(content), "state_dict": kept | heads.tensors}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = load_content(model, content, label, source_model=source_model, eps=eps, pixels="torchvision")
    alarms = [str(it.message).removeprefix(f"load_weights: {label}: ") for it in caught]
    # That the heads are new is said anyway.
    return summary(report, heads, options, [alarm for alarm in alarms if not alarm.startswith("of the parts beside")])


def _check_channels(found: Checkpoint, options: ModelOptions, label: str) -> None:
    """In one sentence, in place of a list of every tensor."""
    level = found.context.first_level
    for name, key in (("width", "stem.conv.weight"), ("fpn_channels", f"fpn.inner{level}.conv.weight")):
        weight = found.tensors.get(key)
        wanted = getattr(options, name)
        if weight is not None and weight.dim() == 4 and weight.shape[0] != wanted:
            raise ValueError(f"{label} has weights for {name} = {weight.shape[0]}; the model's {name} is {wanted}")


def _names(classes: Iterable[str], keypoints: Iterable[str] | None) -> Names:
    return Names(("", *classes), tuple(keypoints or ()) or None)


def _eps(found: Checkpoint, model: nn.Module | None) -> float | None:
    norms = (name.rpartition(".")[0] for name in found.tensors if name.endswith(".running_var"))
    norm = next(norms, None)
    return None if norm is None else Source(found, model, None).eps(norm)


def _member(name: str, options: ModelOptions) -> Any:
    """The member of torchvision's enums that ``name`` is of; ``name`` itself where it is a path or an address."""
    if re.fullmatch(r"\w+_Weights\.\w+", name):
        try:
            return get_weight(name)
        except (KeyError, ValueError, TypeError):
            return name  # for the error of resolve
    if not _BARE_NAME.fullmatch(name) or os.path.exists(name):
        return name
    known: dict[str, Any] = {}
    with contextlib.suppress(ValueError):  # a backbone that torchvision does not have
        known |= get_model_weights(options.backbone).__members__
    if options.backbone == "resnet50":
        known |= getattr(detection, _DETECTORS[options.kind]).__members__  # its DEFAULT, too
    if name not in known:
        raise ValueError(
            f"weights is {name!r}; for {options.kind} on {options.backbone} torchvision has "
            f"{', '.join(known) or 'none'}; else give a file, an address or a full name"
        )
    return known[name]


def _of_own_checkpoint(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], Names]:
    """The weights in a checkpoint of this program, the average first, with its names; other content as it is."""
    options, weights, average = (content.get(name) for name in ("options", "model", "ema"))
    if not isinstance(options, Mapping) or not isinstance(weights, Mapping):
        return content, Names()
    classes, keypoints = options.get("class_names"), options.get("keypoint_names")
    if not isinstance(classes, (list, tuple)):
        return content, Names()
    whole = {**weights, **(average if isinstance(average, Mapping) else {})}
    return whole, _names(classes, keypoints if isinstance(keypoints, (list, tuple)) else None)
