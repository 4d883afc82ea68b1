"""The description of a backbone for detectors: names, channels and strides of its levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from resnet_cuda.feature_info import FeatureInfo


class ShapeSpec(NamedTuple):
    """The shape of a level [detectron2.layers.ShapeSpec]; height and width depend on the image and are None.

    For an image of height H, a level of stride s has the height ``ceil(H / s)``.
    """

    channels: int
    height: int | None = None
    width: int | None = None
    stride: int = 1


class Level(NamedTuple):
    """A level of a backbone and the submodule that computes it."""

    name: str
    channels: int
    stride: int
    module: str


class HasOutputShape:
    """A module that describes the levels of its forward, in their order; subclasses define ``levels()``."""

    # TorchScript would compile properties. It looks for those to ignore in the class itself, not in its bases.
    __jit_unused_properties__: Sequence[str] = ("feature_info", "size_divisibility", "padding_constraints")
    __jit_ignored_attributes__ = __jit_unused_properties__

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A subclass's list would take the place of this one.
        own = HasOutputShape.__jit_unused_properties__
        cls.__jit_unused_properties__ = tuple({*cls.__jit_unused_properties__, *own})
        cls.__jit_ignored_attributes__ = tuple({*cls.__jit_ignored_attributes__, *own})
        for name in cls.__jit_unused_properties__:
            setattr(cls, name, getattr(cls, name))

    def levels(self) -> list[Level]:
        raise NotImplementedError

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Each level's channels and stride by its name [detectron2.modeling.Backbone.output_shape].

        If forward returns a dictionary, the names are its keys ("0".."3", "pool"), else detectron2's: "res2".."res5"
        for stages, "p2".."p7" for pyramid levels.
        """
        return {level.name: ShapeSpec(channels=level.channels, stride=level.stride) for level in self.levels()}

    @property
    def feature_info(self) -> FeatureInfo:
        """The same in timm's form: ``feature_info.channels()``, ``.reduction()``, ``.module_name()``."""
        entries = [
            {"num_chs": level.channels, "reduction": level.stride, "module": level.module, "name": level.name}
            for level in self.levels()
        ]
        return FeatureInfo(entries, range(len(entries)))

    @property
    def size_divisibility(self) -> int:
        """1: any image size works. detectron2's own backbones have 0 for that and 32 for a pyramid; detectron2 pads
        images if it is greater than 1."""
        return 1

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Empty: no constraints [detectron2.modeling.Backbone.padding_constraints]."""
        return {}


def levels_within(name: str, module: object) -> list[Level]:
    """The levels of a submodule ``name``, with module names relative to its parent.

    Raises:
        ValueError: if the submodule's class does not describe its levels.
    """
    if not isinstance(module, HasOutputShape):
        raise ValueError(f"{name} is a {type(module).__name__}; to know its levels it must be a HasOutputShape")
    return [level._replace(module=f"{name}.{level.module}") for level in module.levels()]
