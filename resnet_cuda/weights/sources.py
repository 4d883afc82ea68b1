"""What may be given as a source of weights, and how it is resolved to its content; recognised_source.py reads that."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from resnet_cuda.weights import downloads, files

ALLOWED = (
    "a path, a state dict, a module, a torchvision weights enum or its name, "
    "or an address of http://, https://, detectron2:// or hf://"
)

_FULL_NAME = re.compile(r"[A-Za-z0-9_]+_Weights\.\w+")
_BARE_NAME = re.compile(r"[A-Z][A-Z0-9_]*")  # DEFAULT, IMAGENET1K_V2, COCO_V1


def resolve(
    source: Any, backbone_name: str | None = None, *, argument: str = "source"
) -> tuple[Mapping[str, Any], str]:
    """The content of ``source``, and a label for messages about it.

    Args:
        source: one of:

            - a mapping, which is the content itself;
            - a module, whose ``state_dict()`` is the content;
            - the path of a file, see :func:`resnet_cuda.weights.files.read`;
            - a member of a torchvision weights enum, its name ("ResNet50_Weights.IMAGENET1K_V2"), or with a
              ``backbone_name`` the last part of the name ("DEFAULT"), which takes precedence over a path;
            - an address of ``http://``, ``https://``, ``detectron2://`` (of the detectron2 model zoo) or ``hf://``
              (``hf://owner/repository[@revision][/file]``, by the package huggingface_hub).
        backbone_name: a model of torchvision, for names of weights without their enum.
        argument: the name of the caller's argument, for messages.

    Raises:
        ValueError: for a name or an address of another kind, a file that cannot be read, and a file that is not on this
            machine and cannot be downloaded.
        TypeError: for another kind of object.
    """
    if isinstance(source, Mapping):
        return source, "state dict"
    if isinstance(source, nn.Module):
        return source.state_dict(), f"state dict of a {type(source).__name__}"
    if _is_weights_member(source):
        return _of_member(source)
    if isinstance(source, str):
        return _of_text(source, backbone_name, argument)
    if isinstance(source, os.PathLike):
        path = os.fspath(source)
        if isinstance(path, str):
            return files.read(path), path
    raise TypeError(f"{argument} is {source!r:.80}; it must be {ALLOWED}")


def _of_text(source: str, backbone_name: str | None, argument: str) -> tuple[Mapping[str, Any], str]:
    if "://" in source:
        return files.read(downloads.local_file(source, argument)), source
    if _FULL_NAME.fullmatch(source):
        return _of_member(_member_of_full_name(source, argument))
    if backbone_name is not None and _BARE_NAME.fullmatch(source):
        return _of_member(_member_of_model(source, backbone_name, argument))
    if not os.path.exists(source):
        hint = ""
        if _BARE_NAME.fullmatch(source):
            hint = f"; of torchvision's weights give the full name, such as 'ResNet50_Weights.{source}'"
        folder = "" if os.path.isabs(source) else f"; the current folder is {os.getcwd()}"
        raise files.FileError.about(source, f"{argument} is not a file{folder}{hint}")
    return files.read(source), source


def _is_weights_member(source: Any) -> bool:
    """Without importing torchvision: whoever has a member has imported it."""
    return hasattr(type(source), "get_state_dict") and isinstance(getattr(source, "url", None), str)


def _of_member(member: Any) -> tuple[Mapping[str, Any], str]:
    # Not member.get_state_dict(), which unpickles the file without restrictions.
    return files.read(downloads.local_file(member.url, "weights")), f"torchvision {type(member).__name__}.{member.name}"


def _torchvision_models(source: str, argument: str) -> Any:
    try:
        import torchvision.models
    except ImportError as error:
        raise ValueError(
            f"{argument} is {source!r}; a name needs torchvision, which cannot be imported: {error}"
        ) from error
    return torchvision.models


def _member_of_full_name(source: str, argument: str) -> Any:
    models = _torchvision_models(source, argument)
    try:
        return models.get_weight(source)
    except KeyError:
        kind, _, _ = source.partition(".")
        known = type(models.get_weight(f"{kind}.DEFAULT")).__members__
        raise ValueError(f"{argument} is {source!r}; allowed of {kind} are {', '.join(known)}") from None
    except (ValueError, TypeError):
        raise ValueError(f"{argument} is {source!r}; this torchvision has no such weights enum") from None


def _member_of_model(source: str, backbone_name: str, argument: str) -> Any:
    models = _torchvision_models(source, argument)
    try:
        known = models.get_model_weights(backbone_name)
    except ValueError:
        raise ValueError(f"{argument} is {source!r}; torchvision has no model {backbone_name}") from None
    if source not in known.__members__:
        allowed = ", ".join(known.__members__)
        raise ValueError(f"{argument} is {source!r}; allowed for {backbone_name} are {allowed}")
    return known[source]
