"""Where a deformable layer samples, in pixels of the model's input image.

The layer's arguments are recorded while the model runs, so this works with any model whose forward calls the layer with
the whole batch. Positions are x, y; an image's first pixel covers 0 to 1 and has its centre at 0.5, as for boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda._running import evaluation_mode, is_detector, unwrapped
from resnet_cuda.inference.deformable import FoldedDeformPack
from resnet_cuda.layer_sampling import LayerSampling, SamplingPoints
from resnet_cuda.layers import DeformConv2d, DFConv2d

__all__ = [
    "LayerSampling",
    "SamplingPoints",
    "deformable_layer",
    "deformable_layers",
    "observe_sampling",
    "sampling_density",
    "sampling_points",
]

_IMAGES = "an image (3, H, W), a batch (N, 3, H, W) or a list of images"


def deformable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The deformable layers of ``model`` by their names in ``named_modules``, in its order.

    A :class:`~resnet_cuda.layers.DFConv2d` counts once, by its own name, and its ``conv`` does not count. Otherwise
    DeformConv2d, DeformConv and ModulatedDeformConv count, but not mmcv's packs, whose ``forward`` takes no offsets.
    """
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in unwrapped(model).named_modules():
        if isinstance(module, DFConv2d):
            found[name] = module
            inside.add(module.conv)
        elif isinstance(module, DeformConv2d) and not isinstance(module, FoldedDeformPack) and module not in inside:
            found[name] = module
    return found


def deformable_layer(model: nn.Module, layer: str | nn.Module) -> tuple[str, nn.Module]:
    """Name and module of one of :func:`deformable_layers`.

    Args:
        model: any module.
        layer: the module itself, its name, or the end of its name (``"layer3.5.conv2"``) if that is unique.

    Returns:
        (name, module).

    Raises:
        ValueError: if the model has no deformable layer, or none or several of that name; lists the known ones.
        TypeError: if ``layer`` is neither a module nor a string.
    """
    layers = deformable_layers(model)
    if not layers:
        raise ValueError(f"model ({type(unwrapped(model)).__name__}) has no deformable layers")
    if isinstance(layer, nn.Module):
        chosen = [name for name, module in layers.items() if layer in (module, getattr(module, "conv", None))]
    elif isinstance(layer, str):
        chosen = [layer] if layer in layers else [name for name in layers if layer and f".{name}".endswith(f".{layer}")]
    else:
        raise TypeError(f"layer is {type(layer).__name__}; it must be a deformable layer of the model or its name")
    if len(chosen) != 1:
        what = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
        problem = (
            f"{len(chosen)} deformable layers of the model end so" if chosen else "no deformable layer of the model"
        )
        raise ValueError(f"layer is {what}, {problem}; its deformable layers are {', '.join(layers)}")
    return chosen[0], layers[chosen[0]]


@torch.no_grad()
def observe_sampling(model: nn.Module, images: Tensor | Sequence[Tensor], layer: str | nn.Module) -> LayerSampling:
    """Runs ``model`` once on ``images`` and records how ``layer`` sampled, for several queries about one run.

    The model runs in evaluation mode without gradients. Afterwards, even after an error, training mode, hooks and
    random number generators are restored. Of a torchvision detector only the backbone runs if the layer is in it.

    Args:
        model: a torchvision detector (its ``transform`` resizes and pads the images), or any module that takes a batch.
        images: an image (C, H, W), a batch (N, C, H, W), or a list of images (C, H, W), which may differ in size for a
            detector only; floating point, preprocessed for the model, on its device.
        layer: as for :func:`deformable_layer`. If the layer runs several times, the first run is recorded.

    Returns:
        A :class:`LayerSampling`, which answers queries about this run.

    Raises:
        ValueError, TypeError: for a layer as :func:`deformable_layer`; for images of another shape; if the forward does
            not call the layer, or calls it with something other than the whole batch.
    """
    name, module = deformable_layer(model, layer)
    model = unwrapped(model)
    entries = _as_list(images)
    seen: list[tuple] = []

    def look(_conv: nn.Module, arguments: tuple, names: dict) -> None:
        if not seen:
            seen.append((*arguments, *(names[key] for key in ("input", "offset", "mask") if key in names)))

    conv: Any = module.conv if isinstance(module, DFConv2d) else module
    handle = conv.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with evaluation_mode(model):
            batch_size, resized = _run(model, entries, conv)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"the forward of {type(model).__name__} did not reach layer {name}")
    x, offset, mask = (*seen[0], None)[:3]
    if x.shape[0] != len(entries):
        raise ValueError(f"layer {name} ran on a batch of {x.shape[0]}, not on the batch of {len(entries)} images")
    geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    sizes = tuple(_size(image) for image in entries)
    return LayerSampling(name, *geometry, offset, mask, _size(x), batch_size, sizes, resized)


def _size(image: Tensor) -> tuple[int, int]:
    """Height and width."""
    return image.shape[-2], image.shape[-1]


def _as_list(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    if isinstance(images, Tensor):
        entries = [images] if images.dim() == 3 else list(images) if images.dim() == 4 else []
        what = f"of shape {tuple(images.shape)}"
    else:
        entries = list(images)
        what = f"a list of {len(entries)} entries"
    if not entries or not all(isinstance(image, Tensor) and image.dim() == 3 and image.numel() for image in entries):
        raise ValueError(f"images is {what}; it must be {_IMAGES}, not empty")
    return entries


def _run(model: Any, images: list[Tensor], conv: nn.Module) -> tuple[tuple[int, int], tuple[tuple[int, int], ...]]:
    """Runs the model; height and width of the batch, and of each image in it."""
    if is_detector(model):
        batch, _ = model.transform(images)
        if conv in set(model.backbone.modules()):
            model.backbone(batch.tensors)
        else:
            model(images)
        return _size(batch.tensors), tuple((height, width) for height, width in batch.image_sizes)
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise ValueError(f"images have the shapes {sorted(sizes)}; only a torchvision detector takes several sizes")
    model(torch.stack(images))
    return _size(images[0]), tuple(_size(image) for image in images)


def sampling_points(
    model: nn.Module, images: Tensor | Sequence[Tensor], layer: str | nn.Module, places: Tensor, index: int = 0
) -> SamplingPoints:
    """Where ``layer`` samples for its output pixels nearest to ``places``.

    Args:
        model, images, layer: as for :func:`observe_sampling`, with the same errors.
        places: (n, 2) x, y in pixels of image ``index``.
        index: the index of the image.

    Returns:
        ``points`` (n, G, K, 2) x, y and ``grid`` (n, K, 2) x, y in pixels of the image, ``masks`` (n, G, K); see
        :class:`SamplingPoints`. float32, on the model's device.

    Raises:
        IndexError: if ``index`` is out of range.
        ValueError: if ``places`` is of another shape or not finite.
    """
    return observe_sampling(model, images, layer).points(places, index)


def sampling_density(
    model: nn.Module, images: Tensor | Sequence[Tensor], layer: str | nn.Module, index: int = 0
) -> Tensor:
    """How densely ``layer`` samples image ``index``: a heat map.

    Args:
        model, images, layer: as for :func:`observe_sampling`, with the same errors.
        index: the index of the image.

    Returns:
        (H, W) float32, on the model's device: taps per pixel of the layer's input, interpolated to the image's size;
        see :meth:`LayerSampling.density`.

    Raises:
        IndexError: if ``index`` is out of range.
    """
    return observe_sampling(model, images, layer).density(index)
