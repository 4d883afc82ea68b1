"""What a load did, in a few lines for the user."""

from __future__ import annotations

from detection.models.classes import is_of_classes, is_of_keypoints
from detection.models.heads import Heads, parts
from detection.models.options import ModelOptions
from resnet_cuda.weights import LoadReport


def summary(report: LoadReport, heads: Heads, options: ModelOptions, alarms: list[str]) -> str:
    """What was loaded; what is new, and whether because of the classes; each alarm as a line."""
    has_pyramid = any(key.startswith("backbone.fpn.") for key in report.loaded)
    layers = [*heads.taken, *heads.fresh]
    loaded = ["backbone.body", *(["backbone.fpn"] if has_pyramid else []), *parts(heads.taken, layers)]
    lines = [f"{report.source} ({report.format}): loaded {', '.join(loaded)}"]
    if heads.renamed:
        what = "keypoints" if all(is_of_keypoints(layer) for layer in heads.renamed) else "classes"
        lines[0] += f"; by the names of your {what} {', '.join(parts(heads.renamed, layers))}"
    rest = [*([] if has_pyramid else ["backbone.fpn"]), *_new_without_cause(heads, layers)]
    second = [*_new_for_names(heads, layers, options), *([f"new: {', '.join(rest)}"] if rest else [])]
    offsets = sum(key.endswith(".offset.weight") for key in report.missing)
    if offsets:
        second.append(f"the offsets of {offsets} deformable layers are new")
    if heads.left:
        second.append(f"not needed: {', '.join(parts(heads.left, layers))}")
    lines += ["; ".join(second)] if second else []
    return "\n".join(lines + [f"warning: {alarm}" for alarm in alarms])


def _new_for_names(heads: Heads, layers: list[str], options: ModelOptions) -> list[str]:
    """A classifier has no heads: there nothing is new because of the classes."""
    texts = []
    if not heads.taken:
        return texts
    for names, what, is_of in (
        (options.class_names, "classes", is_of_classes),
        (options.keypoint_names, "keypoints", is_of_keypoints),
    ):
        named = [layer for layer in heads.fresh if is_of(layer)]
        if named:
            texts.append(f"new for your {len(names)} {what}: {', '.join(parts(named, layers))}")
    return texts


def _new_without_cause(heads: Heads, layers: list[str]) -> list[str]:
    of_names = [layer for layer in heads.fresh if is_of_classes(layer) or is_of_keypoints(layer)]
    return parts([layer for layer in heads.fresh if not heads.taken or layer not in of_names], layers)
