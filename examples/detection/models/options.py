"""What a checkpoint stores to rebuild its model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class ModelOptions:
    """What a checkpoint stores to rebuild its model. The defaults are torchvision's Mask R-CNN R-50-FPN, with DCNv2."""

    class_names: tuple[str, ...] = ()
    backbone: str = "resnet50"
    norm: str = "frozen_bn"
    dcn_stages: tuple[bool, ...] = (False, True, True, True)
    width: int = 64
    fpn_channels: int = 256
    head_channels: int = 1024
    smallest_anchor: int = 32
    min_size: int = 800
    max_size: int = 1333
    proposals: int = 1000
    rois: int = 512
    trainable_layers: int = 5

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> ModelOptions:
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"the checkpoint has unknown model options {', '.join(unknown)}; allowed are {', '.join(sorted(known))}"
            )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


# Small enough to learn the coins on two cores in minutes. Images are enlarged by 4/3: crops of 96 rows to 128, the
# held-out strip of 384 columns to 512.
COINS = ModelOptions(
    class_names=("coin",),
    backbone="resnet18",
    dcn_stages=(False, True, True, True),
    width=16,
    fpn_channels=64,
    head_channels=128,
    smallest_anchor=16,
    min_size=128,
    max_size=512,
    proposals=200,
    rois=64,
)
