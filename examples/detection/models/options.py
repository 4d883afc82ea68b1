"""What a checkpoint stores to rebuild its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from detection.models import checks
from resnet_cuda.torchvision_body import NORMS, VARIANTS

# What each kind of detector needs of a data set.
TARGETS = {"maskrcnn": "masks", "fasterrcnn": "boxes", "keypointrcnn": "keypoints", "retinanet": "boxes"}
KINDS = tuple(TARGETS)
LEVELS = 5  # of the pyramid: P2 to P6, in RetinaNet P3 to P7


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with its help, and the values that it may have where they are few."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class ModelOptions:
    """What a checkpoint stores to rebuild its model. The defaults are torchvision's Mask R-CNN R-50-FPN, with DCNv2.

    Every field's ``metadata`` has its ``help`` and its ``choices`` (None where they are not few). Lists become tuples,
    so that JSON and YAML give back what was written.

    Raises:
        ValueError: for a value that is not allowed, in one sentence.
    """

    class_names: tuple[str, ...] = _option((), "names of the classes, which are labels 1, 2, ...")
    category_ids: tuple[int, ...] = _option((), "the data set's id of each class; 1, 2, ... where there are none")
    keypoint_names: tuple[str, ...] = _option((), "names of the keypoints, for keypointrcnn")
    kind: str = _option("maskrcnn", "the detector", KINDS)
    backbone: str = _option("resnet50", "resnet18, resnet50, resnext101_32x8d, resnet50d, ...")
    norm: str = _option("frozen_bn", "the backbone's norms: batch norms frozen or trained, group norms", tuple(NORMS))
    dcn_stages: tuple[bool, ...] = _option((False, True, True, True), "which of C2 to C5 are deformable (DCNv2)")
    width: int = _option(64, "channels of the stem; 64 in published networks")
    fpn_channels: int = _option(256, "channels of the pyramid")
    head_channels: int = _option(1024, "channels of the box head; not of retinanet")
    anchor_sizes: tuple[int, ...] = _option(
        (32, 64, 128, 256, 512), "sides of the anchors in pixels of the resized image, one for each of five levels"
    )
    anchor_ratios: tuple[float, ...] = _option((0.5, 1.0, 2.0), "heights of the anchors, divided by their widths")
    min_size: tuple[int, ...] = _option(
        (800,), "images are resized to this shorter side; of several one at random, in evaluation the last"
    )
    max_size: int = _option(1333, "greatest longer side of a resized image")
    proposals: int = _option(1000, "proposals of the RPN that are kept; in retinanet candidates per level")
    rois: int = _option(512, "proposals per image that the box head is trained on; not in retinanet")
    trainable_layers: int | None = _option(
        None, "how many of C5, C4, C3, C2 and the stem are trained; 3 with weights by default, else all 5"
    )

    def __post_init__(self) -> None:
        values = {
            "class_names": checks.distinct_names("class_names", self.class_names),
            "category_ids": checks.distinct_ids("category_ids", self.category_ids, len(self.class_names)),
            "keypoint_names": checks.distinct_names("keypoint_names", self.keypoint_names),
            "kind": checks.choice("kind", self.kind, KINDS),
            "backbone": checks.choice("backbone", self.backbone, tuple(VARIANTS)),
            "norm": checks.choice("norm", self.norm, tuple(NORMS)),
            "dcn_stages": checks.flags("dcn_stages", self.dcn_stages, 4),
            "anchor_ratios": checks.positive_numbers("anchor_ratios", self.anchor_ratios),
        }
        for name in ("width", "fpn_channels", "head_channels", "max_size", "proposals", "rois"):
            values[name] = checks.integer(name, getattr(self, name))
        allowed = f"{LEVELS} integers from 1 on, none less than the one before"
        sizes = checks.integers("anchor_sizes", self.anchor_sizes, allowed)
        if len(sizes) != LEVELS or list(sizes) != sorted(sizes):
            checks.refuse("anchor_sizes", sizes, allowed)
        values |= {"anchor_sizes": sizes, "min_size": self._checked_min_size()}
        if self.trainable_layers is not None:
            values["trainable_layers"] = checks.integer("trainable_layers", self.trainable_layers, 0, 5)
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the class is frozen
        self._check_width()

    def _checked_min_size(self) -> tuple[int, ...]:
        sizes = self.min_size if isinstance(self.min_size, (list, tuple)) else (self.min_size,)
        allowed = f"one or more integers of 1 to max_size, {self.max_size}"
        sizes = checks.integers("min_size", sizes, allowed)
        if not sizes or max(sizes) > self.max_size:
            checks.refuse("min_size", sizes, allowed)
        return sizes

    def _check_width(self) -> None:
        variant = VARIANTS[self.backbone]
        least = -(-64 // variant.width_per_group)  # below, a group has no channel
        if self.width < least:
            checks.refuse("width", self.width, f"at least {least} with the backbone {self.backbone}")
        if variant.deep_stem and self.width % 2:
            checks.refuse("width", self.width, f"even with the backbone {self.backbone}")

    @property
    def targets(self) -> str:
        """What the data set must have: "masks", "boxes" or "keypoints"."""
        return TARGETS[self.kind]

    def resolved(self, pretrained: bool) -> ModelOptions:
        """With a number for ``trainable_layers``: where it is None, 3 for ``pretrained`` weights, else 5."""
        if self.trainable_layers is not None:
            return self
        return replace(self, trainable_layers=3 if pretrained else 5)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelOptions:
        """Of :meth:`as_dict`, also through JSON or YAML; what is left out has its default.

        Raises:
            ValueError: for an unknown name, and a value that is not allowed.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"the model options are {values!r:.100}; they must be names with values")
        known = {it.name for it in fields(cls)}
        unknown = sorted(str(name) for name in values if name not in known)
        if unknown:
            raise ValueError(f"there is no model option {', '.join(unknown)}; allowed are {', '.join(sorted(known))}")
        return cls(**values)


# Small enough to learn the coins on two cores in minutes. Images are enlarged by 4/3: crops of 96 rows to 128, the
# held-out strip of 384 columns to 512.
COINS = ModelOptions(
    class_names=("coin",),
    backbone="resnet18",
    width=16,
    fpn_channels=64,
    head_channels=128,
    anchor_sizes=(16, 32, 64, 128, 256),
    min_size=(128,),
    max_size=512,
    proposals=200,
    rois=64,
    trainable_layers=5,
)
