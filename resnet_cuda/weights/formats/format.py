"""The description of one library's weight files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from resnet_cuda.weights.formats.templates import Context, Rule


@dataclass(frozen=True)
class Format:
    """A library's names of a ResNet's tensors, and its conventions that files do not state.

    Attributes:
        name: the name for ``convert --to``.
        body, fpn, classifier: rules; the first that fits writes a key, the others are used for reading only.
        anchor: the pattern after a body's prefix in the key of a stage's first convolution; has the group "stage".
        fpn_anchor: the pattern after a pyramid's prefix.
        prefixes: of body, pyramid and C5 head by layout: "classifier", "backbone" and "detector".
        extras: further entries of a file's dictionary.
        wrapper: the entry of the file's dictionary that holds the weights; None if there is no such nesting.
        eps: epsilon of its batch norms.
        pixels: the name in ``conventions.PIXELS`` that fits most of its files.
        stride_in_1x1: the place of a bottleneck's stride in most of its files; None if files differ.
    """

    name: str
    body: tuple[Rule, ...]
    fpn: tuple[Rule, ...]
    classifier: tuple[Rule, ...]
    anchor: re.Pattern[str]
    fpn_anchor: re.Pattern[str]
    prefixes: dict[str, tuple[str, str, str]]
    wrapper: str | None
    eps: float
    pixels: str
    stride_in_1x1: bool | None
    extras: dict[str, object] = field(default_factory=dict)

    def read(self, key: str, component: str, context: Context, dims: int | None = None) -> str | None:
        """The neutral name of ``key`` (without its prefix) in a component, for a tensor of ``dims`` dimensions."""
        names = [rule.read(key, context) for rule in getattr(self, component)]
        found = [name for name in names if name is not None]
        if len(found) > 1 and dims is not None:  # a shortcut's second layer is a norm, or a convolution after pooling
            found = [name for name in found if dims_of(name) in (None, dims)] or found
        return found[0] if found else None

    def write(self, name: str, component: str, context: Context) -> str | None:
        """The key of a neutral name, without its prefix; None if the format has none."""
        for rule in getattr(self, component):
            key = rule.write(name, context)
            if key is not None:
                return key
        return None


def dims_of(name: str) -> int | None:
    """The number of dimensions of a tensor with this neutral name; None if it may be any."""
    leaf = name.rsplit(".", 1)[1]
    if leaf == "num_batches_tracked":
        return 0
    if leaf != "weight" or re.search(r"\.(norm|gn)", name):
        return 1
    return 2 if name.startswith("classifier") else 4
