"""Statistics for FrozenBatchNorm2d in a network that is trained from scratch.

A frozen norm's statistics come with pretrained weights. Without them it is the identity, and the residual sums of a
deep network double the variance from block to block. So mean and variance of each layer's input are measured once, on a
few images. One pass over one batch suffices: a layer's buffers are set before its own forward runs.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cuda._running import evaluation_mode, is_detector, unwrapped
from resnet_cuda.layers import FrozenBatchNorm2d

_STATISTICS = ("running_mean", "running_var")
# A standard deviation of less than this times the mean is rounding noise.
_NOISE = 1e-6
_RULE = "a tensor (N, 3, H, W), a list of tensors (3, H, W) or an iterable of such batches"


class _Measurement:
    """A forward pre-hook: mean and variance per channel over all of a layer's inputs so far (Chan et al. 1979)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.mean = self.squares = torch.zeros((), device="cpu")

    def __call__(self, layer: FrozenBatchNorm2d, arguments: tuple, names: dict[str, Any]) -> None:
        x = arguments[0] if arguments else names["x"]
        x = x if x.dtype == torch.float64 else x.float()
        count = x.numel() // max(1, x.shape[1])
        if count == 0:
            raise ValueError("calibrate: images is empty; it must hold at least one image")
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        if not bool(mean.isfinite().all() & variance.isfinite().all()):
            raise ValueError(
                f"calibrate: the input of layer {self.name} is not finite; images and the weights before it must be"
            )
        _write_statistics(layer, mean, variance)
        total = self.count + count
        mean, variance = mean.cpu().double(), variance.cpu().double()  # not every device has float64
        difference = mean - self.mean
        self.squares = self.squares + variance * count + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def finish(self, layer: FrozenBatchNorm2d) -> None:
        _write_statistics(layer, self.mean, self.squares / self.count)


def _write_statistics(layer: Any, mean: Tensor, variance: Tensor) -> None:
    """A constant channel gets variance 1: dividing by the rounding noise of its variance would amplify that noise."""
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(torch.where(variance > (_NOISE * mean).square(), variance, torch.ones_like(variance)))


def _batches(images: Any) -> Iterator[Tensor | list[Tensor]]:
    """``images`` as batches: (N, C, H, W) tensors, or lists of (C, H, W) images that may differ in size."""
    if isinstance(images, Tensor):
        yield _checked(images, (4,))
        return
    if not isinstance(images, Iterable) or isinstance(images, (str, bytes, dict)):
        raise TypeError(f"calibrate: images is {type(images).__name__}; it must be {_RULE}")
    loose: list[Tensor] = []
    for entry in images:
        if isinstance(entry, Tensor) and entry.dim() == 3:
            loose.append(_checked(entry, (3,)))
            continue
        if isinstance(entry, (list, tuple)) and len(entry) == 1 and getattr(entry[0], "ndim", 0) == 4:
            yield _checked(entry[0], (4,))  # as a DataLoader gives the batches of a TensorDataset
        elif isinstance(entry, (list, tuple)) and entry and all(isinstance(image, Tensor) for image in entry):
            yield [_checked(image, (3,)) for image in entry]
        else:
            yield _checked(entry, (4,))
    if loose:
        yield loose


def _checked(image: Any, dimensions: tuple[int, ...]) -> Tensor:
    if not isinstance(image, Tensor):
        raise TypeError(f"calibrate: images has an entry of {type(image).__name__}; it must be {_RULE}")
    if image.dim() not in dimensions:
        raise ValueError(f"calibrate: images has an entry of shape {tuple(image.shape)}; it must be {_RULE}")
    if not image.is_floating_point():
        raise ValueError(f"calibrate: images has an entry of {image.dtype}; it must be floating point, as for training")
    if image.numel() == 0:
        raise ValueError(f"calibrate: images has an empty entry, of shape {tuple(image.shape)}")
    if not bool(image.isfinite().all()):
        raise ValueError("calibrate: images has an entry with NaN or infinity; it must be finite")
    return image


def _run(model: Any, layers: dict[str, FrozenBatchNorm2d], batch: Tensor | list[Tensor]) -> None:
    """Runs one batch; of a torchvision detector only the backbone where all frozen norms are in it."""
    if is_detector(model):
        inside = set(model.backbone.modules())
        if all(layer in inside for layer in layers.values()):
            model.backbone(model.transform(list(batch))[0].tensors)
        else:
            model(list(batch))
        return
    if isinstance(batch, Tensor):
        model(batch)
        return
    by_size: dict[torch.Size, list[Tensor]] = {}
    for image in batch:
        by_size.setdefault(image.shape, []).append(image)
    for same in by_size.values():
        model(torch.stack(same))


def _other_norms(model: nn.Module) -> str:
    """For the error: which norms a model has, and whether they measure by themselves."""
    norms = [it for it in model.modules() if "Norm" in type(it).__name__ and not list(it.children())]
    if not norms:
        return "; it has no norms"
    found = Counter(type(it) for it in norms)
    names = [f"{count} {_name_of(kind)}" for kind, count in found.items()]
    measures = all(issubclass(kind, _BatchNorm) for kind in found) and all(it.track_running_stats for it in norms)
    return f"; its norms are {', '.join(names)}{', which measure by themselves in training' if measures else ''}"


def _name_of(kind: type) -> str:
    is_namesake = kind.__name__ == FrozenBatchNorm2d.__name__  # torchvision's
    return f"{kind.__module__}.{kind.__name__}" if is_namesake else kind.__name__


@torch.no_grad()
def calibrate(model: nn.Module, images: Tensor | Iterable[Any]) -> int:
    """Measures the statistics of every :class:`~resnet_cuda.layers.FrozenBatchNorm2d` in ``model`` on ``images``.

    For a network from scratch: afterwards each layer normalises these images to mean 0 and variance 1, before its
    ``weight`` and ``bias``, which do not change. Do not call it on pretrained weights: their statistics belong to them.
    The variance is over N, H and W, as in torch's batch norm. A channel that is constant on all images gets variance 1.

    Over several batches each layer's statistics are those of all batches together, while the layers before it used each
    batch's own, as batch norm does in training [fvcore.nn.update_bn_stats]; over one batch they are exact.

    Training mode, ``requires_grad``, hooks and torch's random number generators are restored; after an error the
    buffers, too. With several processes, calibrate in one of them and broadcast the buffers.

    Args:
        model: a backbone, a whole torchvision detector (its ``transform`` is applied, and only the backbone runs if all
            frozen norms are in it), or any module that takes a batch.
        images: a batch (N, C, H, W); or images (C, H, W), which a detector resizes and pads to a batch, while other
            models get one batch per image size; or an iterable of such batches, taken one at a time. Floating
            point, finite, preprocessed as in training, on the model's device. 16 images are plenty.

    Returns:
        The number of layers that were measured.

    Warns:
        UserWarning: if some, but not all, of the frozen norms were not reached, naming up to five of them.

    Raises:
        ValueError: if the model has no frozen norm or none is reached; if images is empty, not finite or of a wrong
            shape or dtype; if a layer's input is not finite (naming the layer).
        TypeError: if model is no module; if images is neither a tensor nor an iterable of tensors.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"calibrate: model is a {type(model).__name__}; it must be a torch.nn.Module")
    model = unwrapped(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, FrozenBatchNorm2d)}
    if not layers:
        raise ValueError(
            f"calibrate: model ({type(model).__name__}) has no resnet_cuda.layers.FrozenBatchNorm2d; "
            f"there is nothing to measure{_other_norms(model)}"
        )
    before = {name: [getattr(layer, key).clone() for key in _STATISTICS] for name, layer in layers.items()}
    measurements = {name: _Measurement(name) for name in layers}
    handles = [layer.register_forward_pre_hook(measurements[name], with_kwargs=True) for name, layer in layers.items()]
    try:
        with evaluation_mode(model):
            batches = 0
            for batch in _batches(images):
                batches += 1
                _run(model, layers, batch)
        if batches == 0:
            raise ValueError("calibrate: images is empty; it must hold at least one image")
        missed = [name for name, measurement in measurements.items() if measurement.count == 0]
        if len(missed) == len(layers):
            raise ValueError(f"calibrate: the forward of {type(model).__name__} reached none of its frozen norms")
        for name, measurement in measurements.items():
            if measurement.count:
                measurement.finish(layers[name])
    except BaseException:
        for name, values in before.items():
            for key, value in zip(_STATISTICS, values, strict=True):
                getattr(layers[name], key).copy_(value)
        raise
    finally:
        for handle in handles:
            handle.remove()
    if missed:
        warnings.warn(
            f"calibrate: {len(missed)} of {len(layers)} frozen norms were not reached and keep their statistics: "
            f"{', '.join(missed[:5])}{' and others' if len(missed) > 5 else ''}",
            stacklevel=3,
        )
    return len(layers) - len(missed)
