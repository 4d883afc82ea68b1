"""Pretrained weights of classification networks: where they come from, and how a body takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from resnet_cuda.layers import DFConv2d
from resnet_cuda.torchvision_body import TorchvisionBody


def state_dict_of(backbone_name: str, weights: Any) -> Mapping[str, Tensor]:
    """``weights`` as a state dict: itself, or that of a torchvision weights enum or its name.

    torchvision looks for the file in ``torch.hub.get_dir()``/checkpoints (set by ``$TORCH_HOME`` or
    ``torch.hub.set_dir``) and downloads it there.

    Raises:
        ValueError: for anything else, and for a name without torchvision.
    """
    if isinstance(weights, Mapping):
        return weights
    if isinstance(weights, str):
        try:
            from torchvision.models import get_model_weights
        except ImportError as error:
            raise ValueError(
                f"weights is {weights!r}; a name needs torchvision, which cannot be imported: {error}"
            ) from error
        known = get_model_weights(backbone_name)
        if weights not in known.__members__:
            raise ValueError(f"weights is {weights!r}; allowed for {backbone_name} are {', '.join(known.__members__)}")
        weights = known[weights]
    if not hasattr(weights, "get_state_dict"):
        raise ValueError(
            f"weights is {weights!r}; it must be None, a state dict, a torchvision weights enum or its name"
        )
    return weights.get_state_dict(progress=True, check_hash=True)


def load_classification_weights(body: TorchvisionBody, state_dict: Mapping[str, Tensor]) -> None:
    """Loads a classification network's weights into a body, all or nothing.

    A deformable layer takes the plain convolution's weight; its offset convolution keeps its own. ``fc`` and stages
    that the body does not have are ignored.

    Raises:
        ValueError: naming the first keys that are missing, unknown or of another shape.
    """
    expected = body.state_dict()
    deformable = [name for name, layer in body.named_modules() if isinstance(layer, DFConv2d)]
    renamed = {f"{name}.weight": f"{name}.conv.weight" for name in deformable}
    optional = tuple(f"{name}.offset." for name in deformable)
    given = {renamed.get(key, key): value for key, value in state_dict.items()}
    found = {key: value for key, value in given.items() if key in expected}
    missing = [key for key in expected if key not in found and not _is_counter(key) and not key.startswith(optional)]
    unknown = [key for key in given if key not in expected and not _is_counter(key) and not _is_ignored(key, body)]
    wrong = [
        f"{key} {tuple(value.shape)} for {tuple(expected[key].shape)}"
        for key, value in found.items()
        if value.shape != expected[key].shape
    ]
    problems = [
        f"{kind}: {', '.join(keys[:5])}{' and others' if len(keys) > 5 else ''}"
        for kind, keys in (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
        if keys
    ]
    if problems:
        raise ValueError(f"weights do not fit the body; {'; '.join(problems)}")
    with torch.no_grad():
        body.load_state_dict(found, strict=False)


def _is_counter(key: str) -> bool:
    """BatchNorm's, which a FrozenBatchNorm2d does not have."""
    return key.endswith("num_batches_tracked")


def _is_ignored(key: str, body: TorchvisionBody) -> bool:
    """Of the classifier, or of a stage that the body does not have."""
    part = key.split(".", 1)[0]
    return key.startswith("fc.") or (part in ("layer2", "layer3", "layer4") and part not in body.stages)
