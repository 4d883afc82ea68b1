"""The inputs of a network and the names of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.output_shape import HasOutputShape

Example = Tensor | list[Tensor]


@dataclass(frozen=True)
class Signature:
    """One input: a batch (N, C, H, W), or the list of one image (3, H, W) that a detector takes."""

    example: Example

    @property
    def is_detector(self) -> bool:
        return not isinstance(self.example, Tensor)

    @property
    def input_name(self) -> str:
        return "image" if self.is_detector else "images"

    @property
    def _tensor(self) -> Tensor:
        return self.example if isinstance(self.example, Tensor) else self.example[0]

    def dynamic_axes(self) -> dict[int, str]:
        return {1: "height", 2: "width"} if self.is_detector else {0: "batch", 2: "height", 3: "width"}

    def shape(self, dynamic: bool) -> tuple[int | str, ...]:
        names = self.dynamic_axes() if dynamic else {}
        return tuple(names.get(axis, size) for axis, size in enumerate(self._tensor.shape))

    def inputs_to_compare(self, dynamic: bool) -> list[Example]:
        """Random images of the example's shape and, if sizes are dynamic, of another batch and image size."""
        generator = torch.Generator().manual_seed(0)
        like = self._tensor

        def images(*shape: int) -> Example:
            made = torch.rand(shape, generator=generator, device="cpu").to(like.device)
            return [made] if self.is_detector else made

        if self.is_detector:
            channels, height, width = like.shape
            # A detector finds little in noise; the example may be a photograph.
            other = like.transpose(1, 2) if height != width else like[:, : -(-3 * height // 4)]
            return [self.example, *([[other.contiguous()]] if dynamic else [])]
        batch, channels, height, width = like.shape
        found = [images(*like.shape)]
        if dynamic:
            found.append(images(batch + 1 if batch != 2 else 1, channels, width + 13, height))
        return found

    def output_names(self, model: nn.Module) -> tuple[str, ...]:
        with torch.no_grad():
            outputs = model(self.example)
        return names_of(model, outputs)


def names_of(model: nn.Module, outputs: Any) -> tuple[str, ...]:
    if self_naming := _mapping(outputs):
        return tuple(str(name) for name in self_naming)
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    if isinstance(model, HasOutputShape) and len(names := tuple(model.output_shape())) == len(outputs):
        return names
    return tuple(f"output_{index}" for index in range(len(outputs)))


def tensors_of(outputs: Any) -> list[Tensor]:
    """The outputs as a list, in the exporters' order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    mapping = _mapping(outputs)
    return list(outputs) if mapping is None else list(mapping.values())


def _mapping(outputs: Any) -> Mapping[str, Tensor] | None:
    """A backbone's dictionary, or the first of a detector's."""
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, (list, tuple)) and outputs and isinstance(outputs[0], Mapping):
        return outputs[0]
    return None


def signature_of(
    where: str, model: nn.Module, size: Sequence[int], example: Example | None, dynamic: bool
) -> Signature:
    """The signature of ``model``, with ``example`` or random images of ``size``.

    If sizes are dynamic, a batch of 1 is traced as 2: torch.export makes sizes of 0 and 1 constants.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"{where}: model is a {type(model).__name__}; it must be a torch.nn.Module, not a scripted one"
        )
    if example is None:
        # A detector has transform, backbone, and so on [torchvision's GeneralizedRCNN and RetinaNet].
        if isinstance(getattr(model, "transform", None), nn.Module) and hasattr(model, "backbone"):
            example = [torch.rand(3, *size, device=_device(model))]
        else:
            example = torch.rand(1, _channels(model), *size, device=_device(model))
    if isinstance(example, (list, tuple)):
        if len(example) != 1 or not isinstance(example[0], Tensor) or example[0].dim() != 3:
            raise ValueError(f"{where}: example is a list that is not of one image; it must be [image (3, H, W)]")
        example = [example[0]]
    elif not isinstance(example, Tensor) or example.dim() != 4:
        was = f"of shape {tuple(example.shape)}" if isinstance(example, Tensor) else f"a {type(example).__name__}"
        raise ValueError(f"{where}: example is {was}; it must be a tensor (N, C, H, W), or a list of one (3, H, W)")
    elif dynamic and len(example) == 1:
        example = example.repeat(2, 1, 1, 1)
    return Signature(example)


def _device(model: nn.Module) -> torch.device:
    return next((it.device for it in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _channels(model: nn.Module) -> int:
    """Of an image: what the first convolution reads, 3 where there is none."""
    return next((it.in_channels for it in model.modules() if isinstance(it, (nn.Conv2d, FoldedConv2d))), 3)
