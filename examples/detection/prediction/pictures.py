"""Pictures: detections and ground truth over a photograph, and where a deformable layer samples."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from detection.evaluation.evaluate import MASK_THRESHOLD
from resnet_cuda.layers import DFConv2d

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#17becf")
WIDTH = 960  # pixels of the picture


def _enlarged(images: Tensor) -> Tensor:
    """(n, C, H, W) at the picture's width."""
    height = max(1, round(images.shape[-2] * WIDTH / images.shape[-1]))
    return F.interpolate(images.float().cpu(), size=(height, WIDTH), mode="bilinear").clamp(0, 1)


def _with_masks(image: Tensor, masks: Tensor) -> Tensor:
    """``image`` (3, H, W) at the picture's width, with masks (n, H, W) in 0..1 over it."""
    picture = _enlarged(image[None])[0]
    if len(masks) == 0:
        return picture
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(masks))]
    return draw_segmentation_masks(picture, _enlarged(masks[:, None])[:, 0] >= MASK_THRESHOLD, 0.4, colours)


def _with_detections(image: Tensor, prediction: dict[str, Tensor], class_names: tuple[str, ...]) -> Tensor:
    picture = _with_masks(image, prediction["masks"][:, 0])
    if len(prediction["boxes"]) == 0:
        return picture
    captions = [
        f"{class_names[label - 1]} {score:.2f}"
        for label, score in zip(prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True)
    ]
    boxes = prediction["boxes"] * (WIDTH / image.shape[-1])
    font = {"font": findfont("DejaVu Sans"), "font_size": 11}
    return draw_bounding_boxes(picture, boxes, captions, "yellow", width=2, fill_labels=True, **font)


def _show(axes: Axes, picture: Tensor, title: str) -> None:
    axes.imshow(picture.permute(1, 2, 0).numpy())
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_axis_off()
    axes.set_autoscale_on(False)  # sampling points outside the photograph must not shrink it


def confident(prediction: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """The detections whose score is at least ``threshold``, on the CPU."""
    keep = prediction["scores"] >= threshold
    return {name: value[keep].cpu() for name, value in prediction.items()}


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
    # From the photograph to the layer's input: the transform resizes (and pads at the far side), the body strides.
    resized = torch.tensor(batch.image_sizes[0][::-1]) / torch.tensor(image.shape[:0:-1])
    strides = torch.tensor(
        [batch.tensors.shape[-1] / seen["input"].shape[-1], batch.tensors.shape[-2] / seen["input"].shape[-2]]
    )
    scale = resized / strides  # x, y
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
    scale = WIDTH / image.shape[-1]
    points = sampling_points(model, image, layer, places)
    for index, (place, samples) in enumerate(zip(places * scale, points * scale, strict=True)):
        axes.plot(*place, marker="+", color="white", markersize=9, markeredgewidth=1.5)
        colour = COLOURS[index % len(COLOURS)]
        axes.scatter(samples[:, 0], samples[:, 1], s=12, color=colour, edgecolors="white", linewidths=0.4)


def _figure(rows: int, image: Tensor) -> tuple[Figure, list[Axes]]:
    height, width = image.shape[-2:]
    figure = Figure(figsize=(8, rows * (8 * height / width + 0.35)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def draw_detections(path: Path, image: Tensor, prediction: dict[str, Tensor], class_names: tuple[str, ...]) -> None:
    """The photograph with the detections over it."""
    figure, (axes,) = _figure(1, image)
    _show(axes, _with_detections(image, prediction, class_names), f"{len(prediction['scores'])} detections")
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
    photograph = _enlarged(image[None])[0]
    detections = f"detections: {len(prediction['scores'])}. {title}"
    sampling = "a deformable layer of C4: for the output pixel at +, its 3x3 taps sample at the dots"
    figure, axes = _figure(4, image)
    _show(axes[0], photograph, "photograph, held out from training")
    _show(axes[1], _with_masks(image, target["masks"]), f"ground truth: {len(target['boxes'])}")
    _show(axes[2], _with_detections(image, prediction, class_names), detections)
    _show(axes[3], photograph, sampling)
    boxes = prediction["boxes"]
    _draw_sampling(axes[3], model, image, torch.stack([boxes[:, [0, 2]].mean(1), boxes[:, [1, 3]].mean(1)], dim=1))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=WIDTH / figure.get_figwidth())
