"""The demo's picture: photograph, truth, detections, and where a deformable layer samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.ops import box_iou

from detection.prediction.detections import captions_of, with_objects
from detection.prediction.frame import Frame
from detection.prediction.palette import object_colour
from detection.prediction.sampling_picture import draw_arrows, places_of
from detection.prediction.sheet import Sheet
from resnet_cuda.sampling import deformable_layers, observe_sampling

SAME = 0.5  # intersection over union of boxes, from which on a detection has the colour of a true object


def last_deformable_layer(model: nn.Module, stage: str = "layer3") -> nn.Module | None:
    """The last deformable layer of a stage, or of the model where the stage has none."""
    layers = deformable_layers(model)
    of_stage = [layer for name, layer in layers.items() if f".{stage}." in f".{name}."]
    chosen = of_stage or list(layers.values())
    return chosen[-1] if chosen else None


def matching_numbers(truth: Tensor, found: Tensor) -> list[int]:
    """For each box of ``found`` (n, 4) the number of its box in ``truth`` (m, 4), or a number from m on."""
    overlap = box_iou(found.float(), truth.float())  # (n, m)
    numbers = [-1] * len(found)
    while overlap.numel() and float(overlap.max()) >= SAME:
        detection, number = divmod(int(overlap.argmax()), overlap.shape[1])
        numbers[detection] = number
        overlap[detection] = overlap[:, number] = -1
    free = iter(range(len(truth), len(truth) + len(found)))
    return [next(free) if number < 0 else number for number in numbers]


def draw_comparison(
    path: Path,
    image: Tensor,
    target: dict[str, Any],
    prediction: dict[str, Tensor],
    class_names: Sequence[str],
    model: nn.Module,
    title: str,
    keypoint_names: Sequence[str] = (),
) -> None:
    """Photograph, truth, detections (an object in one colour in both), and sampling points at the detections' centres.

    Args:
        path: the picture's file.
        image: (3, H, W), floating point in 0..1.
        target, prediction: of that image, with masks, keypoints or boxes only.
        class_names: of the labels 1, 2, ...
        model: without a deformable layer the last panel is left out.
        title: follows the number of detections.
    """
    height, width = image.shape[-2:]
    layer = last_deformable_layer(model)
    columns = 1 if width > 1.5 * height else 2 if 1.5 * width > height else 4
    frame = Frame.of(image, 720, 720) if columns == 2 else Frame.of(image, 940, 940)
    colours = [object_colour(it) for it in matching_numbers(target["boxes"].cpu(), prediction["boxes"].cpu())]
    options = {"frame": frame, "keypoint_names": keypoint_names}
    truth = captions_of(target, class_names) if len(class_names) > 1 else None
    photograph = frame.canvas(image)
    pictures = [
        photograph,
        with_objects(image, target, truth, boxes="masks" not in target, **options),
        with_objects(image, prediction, captions_of(prediction, class_names), colours=colours, **options),
    ]
    titles = [
        "photograph, held out from training",
        f"ground truth: {len(target['boxes'])}",
        f"detections: {len(prediction['scores'])}. {title}",
    ]
    if layer is not None:
        device = next(model.parameters()).device
        look = observe_sampling(model, [image.to(device)], layer)
        count = max(1, min(12, len(colours)))
        sampled = look.points(places_of(prediction, image, count))
        pictures.append(photograph)
        taps = f"{look.kernel_size[0]}x{look.kernel_size[1]}"
        titles.append(f"deformable layer {look.name}: its {taps} taps, from the regular grid to where they sample")
        order = prediction["scores"].cpu().argsort(descending=True)[:count].tolist()
        shown = [colours[it] for it in order] or [object_colour(it) for it in range(len(sampled.grid))]
    sheet = Sheet(pictures, titles, min(columns, len(pictures)))
    if layer is not None:
        draw_arrows(sheet.axes[-1], frame, sampled, shown)
    sheet.save(path)
