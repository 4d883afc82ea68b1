"""Hints why weights do not fit, inferred from their names, and what to do."""

from __future__ import annotations

import re

from resnet_cuda.weights.checkpoint import Checkpoint
from resnet_cuda.weights.recognised_source import Source
from resnet_cuda.weights.reparametrized import advice
from resnet_cuda.weights.target import Target


def hints(target: Target, source: Source, refused: list[tuple[str, str]]) -> list[str]:
    """A sentence for each difference of structure, with the argument of resnet_fpn_backbone to change."""
    given, wanted = source.checkpoint, target.checkpoint
    sides = (
        advice((key for kind, key in refused if kind == side), is_model)
        for side, is_model in (("unexpected", False), ("missing", True))
    )
    found = [it for it in sides if it is not None]
    for checkpoint, remedy in (
        (
            wanted,
            "The model has no memory: build it on a real device, or call its to_empty(device=...), which leaves "
            "what the source lacks, such as new offsets, uninitialised",
        ),
        (given, "The source has no values: a model that was built on the meta device, say"),
    ):
        if any(it.is_meta for it in checkpoint.tensors.values()):
            found.append(remedy)
    counts = [_blocks(given), _blocks(wanted)]
    if all(counts) and counts[0][: len(counts[1])] != counts[1][: len(counts[0])]:
        there, here = (", ".join(map(str, it)) for it in counts)
        found.append(f"The source has stages of {there} blocks, the model of {here}: networks of another depth")
    elif {_is_bottleneck(given), _is_bottleneck(wanted)} == {True, False}:
        found.append("One has bottlenecks, the other basic blocks: networks of another depth")
    for what, part, argument in (
        ("a deep stem", "stem.0.", "deep_stem=, or a name such as resnet50d"),
        ("shortcuts with average pooling", ".shortcut_avg.", "avg_down=, or a name such as resnet50d"),
        ("deformable layers", ".offset.", "dcn_stages="),
        ("group norms in the body", "stem.gn", 'norm_layer="gn"'),
        ("norms in the pyramid", ("fpn.inner5.norm", "fpn.inner5.gn"), "fpn_norm_layer="),
    ):
        there, here = (_has(it, part) for it in (given, wanted))
        kinds = {kind for kind, _ in refused}
        if there != here and ("unexpected" if there else "missing") in kinds and _matters(what, there, refused):
            one, other = ("source", "model") if there else ("model", "source")
            found.append(f"The {one} has {what}, the {other} not ({argument})")
    if dict(refused).get("of another shape") and len({kind for kind, _ in refused}) == 1:
        if any(".offset." in key or "conv_offset" in key for _, key in refused):
            found.append("Offsets of another shape: modulated= or deformable_groups= differ")
        elif not any("layer" in key or "res" in key for _, key in refused):
            found.append("strict=False loads the rest, where that is meant, for other classes say")
    return found


def _matters(what: str, there: bool, refused: list[tuple[str, str]]) -> bool:
    """A plain source for a deformable model fits."""
    return what != "deformable layers" or there or any("offset" in key for _, key in refused)


def _has(checkpoint: Checkpoint, part: str | tuple[str, ...]) -> bool:
    parts = (part,) if isinstance(part, str) else part
    return any(it in name for name in checkpoint.tensors for it in parts)


def _blocks(checkpoint: Checkpoint) -> list[int]:
    return [count for _, count in sorted(checkpoint.context.block_counts.items())]


def _is_bottleneck(checkpoint: Checkpoint) -> bool | None:
    """Whether blocks have a third convolution or norm; None if there is none of a block's."""
    parts = {
        found[1] for name in checkpoint.tensors if (found := re.match(r"res\d+\.\d+\.(?:conv|norm|gn)(\d)\.", name))
    }
    return "3" in parts if parts else None
