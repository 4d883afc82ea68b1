"""Pictures to look at: detections over a photograph, ground truth, where a deformable layer samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from resnet_cuda.layers import DFConv2d

COLOURS = [
    (0.12, 0.47, 0.71),
    (1.0, 0.5, 0.05),
    (0.17, 0.63, 0.17),
    (0.84, 0.15, 0.16),
    (0.58, 0.4, 0.74),
    (0.09, 0.75, 0.81),
]


def _show(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).cpu().numpy())
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_axis_off()
    # Boxes and sampling points beyond the border must not shrink the photograph.
    axes.set_xlim(-0.5, image.shape[-1] - 0.5)
    axes.set_ylim(image.shape[-2] - 0.5, -0.5)
    axes.set_autoscale_on(False)


def _draw_masks(axes: Axes, masks: np.ndarray) -> None:
    for index, mask in enumerate(masks):
        colour = COLOURS[index % len(COLOURS)]
        axes.imshow(np.dstack([np.full(mask.shape, c) for c in colour] + [0.4 * mask]))
        axes.contour(mask, [0.5], colors=[colour], linewidths=1)


def _draw_boxes(axes: Axes, prediction: dict[str, Tensor], class_names: tuple[str, ...]) -> None:
    scores, labels = prediction["scores"].tolist(), prediction["labels"].tolist()
    for (x1, y1, x2, y2), score, label in zip(prediction["boxes"].tolist(), scores, labels, strict=True):
        axes.add_patch(_rectangle(x1, y1, x2 - x1, y2 - y1))
        text = f"{class_names[label - 1]} {score:.2f}"
        axes.text(x1, y1 - 1, text, fontsize=6, color="black", bbox={"facecolor": "yellow", "pad": 0.5, "linewidth": 0})


def _rectangle(x: float, y: float, width: float, height: float):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, fill=False, edgecolor="yellow", linewidth=0.8)


def confident(prediction: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    keep = prediction["scores"] >= threshold
    return {name: value[keep].cpu() for name, value in prediction.items()}


def _binary(prediction: dict[str, Tensor]) -> np.ndarray:
    return (prediction["masks"][:, 0] >= 0.5).float().numpy()


@torch.no_grad()
def sampling_points(model: MaskRCNN, image: Tensor, layer: DFConv2d, places: Tensor) -> Tensor:
    """Where ``layer`` samples for the output pixels nearest to ``places`` (n, 2) x, y of ``image``: (n, K, 2) x, y.

    Positions are the regular grid of the kernel plus the predicted offsets, of the first offset group.
    """
    seen: dict[str, Tensor] = {}
    handle = layer.offset.register_forward_hook(
        lambda _layer, inputs, output: seen.update(input=inputs[0], output=output)
    )
    try:
        model.eval()
        batch, _ = model.transform([image])
        model.backbone(batch.tensors)
    finally:
        handle.remove()
    conv = layer.conv
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    offsets = seen["output"][0, : 2 * taps].unflatten(0, (taps, 2)).cpu()  # (K, (dy, dx), Ho, Wo)
    # From the photograph to the layer's input: enlarged by the transform (padding is on the far side), then strided.
    enlarged = torch.tensor(batch.image_sizes[0][::-1]) / torch.tensor(image.shape[:0:-1])
    strides = torch.tensor(
        [batch.tensors.shape[-1] / seen["input"].shape[-1], batch.tensors.shape[-2] / seen["input"].shape[-2]]
    )
    scale = enlarged / strides  # x, y
    in_input = places * scale - 0.5
    stride, padding, dilation = (torch.tensor(value[::-1]) for value in (conv.stride, conv.padding, conv.dilation))
    tap_y, tap_x = torch.meshgrid(torch.arange(conv.kernel_size[0]), torch.arange(conv.kernel_size[1]), indexing="ij")
    grid = torch.stack([tap_x.flatten(), tap_y.flatten()], dim=1) * dilation  # (K, 2) x, y
    centre = (torch.tensor(conv.kernel_size[::-1]) - 1) * dilation / 2
    out = ((in_input + padding - centre) / stride).round().long()
    limit = torch.tensor([offsets.shape[-1], offsets.shape[-2]]) - 1
    out = out.clamp(min=torch.zeros_like(limit), max=limit)
    moved = offsets[:, :, out[:, 1], out[:, 0]].permute(2, 0, 1).flip(-1)  # (n, K, (dx, dy))
    positions = out[:, None] * stride - padding + grid + moved
    return (positions + 0.5) / scale


def last_deformable_layer(model: MaskRCNN, stage: str = "layer3") -> DFConv2d | None:
    """The last deformable layer of a stage, or of the backbone where the stage has none."""
    layers = {name: layer for name, layer in model.backbone.named_modules() if isinstance(layer, DFConv2d)}
    of_stage = [layer for name, layer in layers.items() if f".{stage}." in f".{name}."]
    chosen = of_stage or list(layers.values())
    return chosen[-1] if chosen else None


def _draw_sampling(axes: Axes, model: MaskRCNN, image: Tensor, places: Tensor) -> None:
    layer = last_deformable_layer(model)
    if layer is None or len(places) == 0:
        return
    points = sampling_points(model, image, layer, places)
    for index, (place, samples) in enumerate(zip(places, points, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(*place, marker="+", color="white", markersize=9, markeredgewidth=1.5)
        axes.scatter(samples[:, 0], samples[:, 1], s=12, color=[colour], edgecolors="white", linewidths=0.4)


def _figure(rows: int, image: Tensor) -> tuple[Figure, list[Axes]]:
    height, width = image.shape[-2:]
    figure = Figure(figsize=(8, rows * (8 * height / width + 0.35)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def draw_detections(path: Path, image: Tensor, prediction: dict[str, Tensor], class_names: tuple[str, ...]) -> None:
    """The photograph with the detections over it."""
    figure, (axes,) = _figure(1, image)
    _show(axes, image, f"{len(prediction['scores'])} detections")
    _draw_masks(axes, _binary(prediction))
    _draw_boxes(axes, prediction, class_names)
    _save(figure, path)


def draw_comparison(
    path: Path,
    image: Tensor,
    target: dict,
    prediction: dict[str, Tensor],
    class_names: tuple[str, ...],
    model: MaskRCNN,
    title: str,
) -> None:
    """Photograph, ground truth, detections, and where a deformable layer samples for the detections' centres."""
    figure, axes = _figure(4, image)
    _show(axes[0], image, "photograph, held out from training")
    _show(axes[1], image, f"ground truth: {len(target['boxes'])}")
    _draw_masks(axes[1], target["masks"].numpy().astype(float))
    _show(axes[2], image, f"detections: {len(prediction['scores'])}. {title}")
    _draw_masks(axes[2], _binary(prediction))
    _draw_boxes(axes[2], prediction, class_names)
    _show(axes[3], image, "a deformable layer of C4: for the output pixel at +, its 3x3 taps sample at the dots")
    boxes = prediction["boxes"]
    _draw_sampling(axes[3], model, image, torch.stack([boxes[:, [0, 2]].mean(1), boxes[:, [1, 3]].mean(1)], dim=1))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
