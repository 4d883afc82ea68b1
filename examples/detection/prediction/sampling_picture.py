"""Where a deformable layer samples: arrows at some places, and a heat map of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image
from torch import Tensor, nn

from detection.prediction.frame import Frame
from detection.prediction.palette import Colour, object_colour
from detection.prediction.sheet import GAP, Sheet
from resnet_cuda.sampling import SamplingPoints, observe_sampling

PLACES = 6
HEAT = colormaps["inferno"]


def places_of(prediction: dict[str, Tensor], image: Tensor, count: int = PLACES) -> Tensor:
    """Centres of the ``count`` best detections, or a grid of 3 x 2 where nothing is detected: (n, 2) x, y."""
    boxes = prediction["boxes"].detach().cpu()[prediction["scores"].detach().cpu().argsort(descending=True)[:count]]
    if len(boxes):
        return torch.stack([boxes[:, [0, 2]].mean(1), boxes[:, [1, 3]].mean(1)], dim=1)
    height, width = image.shape[-2:]
    shape = (2, 3) if width >= height else (3, 2)
    rows, columns = ((torch.arange(length) + 0.5) / length for length in shape)
    return torch.stack(torch.meshgrid(columns * width, rows * height, indexing="xy"), dim=-1).reshape(-1, 2)


def distinct(sampled: SamplingPoints) -> SamplingPoints:
    """Each output pixel once: places that are near each other have the same, whose arrows would hide each other."""
    seen = {tuple(grid): number for number, grid in reversed(list(enumerate(sampled.grid.flatten(1).tolist())))}
    first = torch.tensor(sorted(seen.values()), dtype=torch.long, device=sampled.grid.device)
    return SamplingPoints(*(values[first] for values in sampled))


def draw_arrows(axes: Axes, frame: Frame, sampled: SamplingPoints, colours: Sequence[Colour]) -> None:
    """For each place: rings at the regular grid, arrows to the dots where the taps sample, fainter where masked."""
    grid = frame.points(sampled.grid.cpu())  # (n, K, 2)
    points = frame.points(sampled.points.cpu())  # (n, G, K, 2)
    opacities = 0.45 + 0.55 * (sampled.masks / sampled.masks.amax().clamp(min=1e-6)).cpu() if len(grid) else []
    line = frame.line
    for number, colour in enumerate(colours):
        rgb = np.array(colour) / 255
        for width, paint in ((2.2, "black"), (1.0, "white")):  # rings for any ground
            ring = {"facecolors": "none", "edgecolors": paint, "linewidths": width}
            axes.scatter(*grid[number].T, s=(2.2 * line) ** 2, **ring)
        for ends, alpha in zip(points[number], opacities[number].tolist(), strict=True):
            ends = np.nan_to_num(ends, nan=-1e4, posinf=1e4, neginf=-1e4).clip(-1e4, 1e4)
            paint = {"color": [(*rgb, it) for it in alpha], "edgecolors": [(1, 1, 1, it) for it in alpha]}
            axes.quiver(
                *grid[number].T,
                *(ends - grid[number]).T,
                angles="xy",
                scale_units="xy",
                scale=1,
                units="dots",
                width=line,
                headwidth=4.5,
                headlength=4.5,
                headaxislength=4.0,
                minlength=0,
                linewidths=0.5,
                **paint,
            )
            axes.scatter(*ends.T, s=(1.8 * line) ** 2, linewidths=0.6, zorder=3, **paint)


def _heat_over(image: Tensor, frame: Frame, density: np.ndarray, scale: Normalize) -> np.ndarray:
    canvas = frame.canvas(image)
    grey = canvas[frame.inside].mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    heat = np.asarray(Image.fromarray(density.astype(np.float32)).resize(frame.size, Image.Resampling.BILINEAR))
    colours = HEAT(np.clip(scale(heat), 0, 1))[..., :3] * 255
    canvas[frame.inside] = (0.4 * grey + 0.6 * colours).astype(np.uint8)
    return canvas


def draw_sampling(path: Path, image: Tensor, model: nn.Module, layer_name: str, places: Tensor) -> None:
    """Two panels: arrows to where ``layer_name`` samples for ``places``, and a heat map of the whole layer.

    Args:
        path: the picture's file.
        image: (3, H, W), floating point in 0..1.
        model: a detector, or any model that takes a batch.
        layer_name: as for :func:`resnet_cuda.sampling.deformable_layer`, whose errors it has.
        places: (n, 2) x, y in pixels of the image.
    """
    device = next(model.parameters()).device
    look = observe_sampling(model, [image.to(device)], layer_name)
    sampled = distinct(look.points(places))
    height, width = image.shape[-2:]
    columns = 1 if width > 1.4 * height else 2
    frame = Frame.of(image, 960, 960) if columns == 1 else Frame.of(image, 760, 760)
    density = look.density().cpu().numpy()
    density = density / max(float(density.mean()), 1e-6)
    low, high = np.percentile(density, (0.5, 99.5)).tolist()
    scale = Normalize(min(low, 0.6), max(high, 1.4))  # a layer that reads evenly shows an even colour, not noise
    moved = (sampled.points - sampled.grid[:, None]).norm(dim=-1)
    shift = float(moved.mean()) if moved.numel() else 0.0
    across, down = look.strides()
    taps = f"{look.kernel_size[0]}x{look.kernel_size[1]} taps"
    titles = [
        f"{look.name}: its {taps} for {len(sampled.grid)} output pixels; rings: regular grid "
        f"({across:.0f} x {down:.0f} px apart), dots: sampled (moved {shift:.0f} px on average)",
        f"{look.name}: how strongly all its taps together read each place",
    ]
    sheet = Sheet([frame.canvas(image), _heat_over(image, frame, density, scale)], titles, columns, below=44)
    draw_arrows(sheet.axes[0], frame, sampled, [object_colour(it) for it in range(len(sampled.grid))])
    _draw_scale(sheet, frame, columns, scale)
    sheet.save(path)


def _draw_scale(sheet: Sheet, frame: Frame, columns: int, scale: Normalize) -> None:
    """The heat map's colours, below it."""
    left = 2 * GAP + (columns - 1) * (frame.width + GAP)
    top = sheet.size[1] - GAP - 40
    axes = sheet.axes_at(left, top, min(frame.width - 2 * GAP, 320), 10)
    bar = sheet.figure.colorbar(ScalarMappable(scale, HEAT), cax=axes, orientation="horizontal")
    bar.ax.tick_params(labelsize=8)
    bar.set_label("times the image's mean", fontsize=8)
