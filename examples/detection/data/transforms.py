"""Augmentation of image and target together by torchvision.transforms.v2, with random numbers of a given generator."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import BoundingBoxes, Mask

from detection.data.boxes import SMALLEST
from detection.data.keypoint_names import mirrored_keypoints
from detection.data.sample import Sample, Transform, select

PAD = (0.485, 0.456, 0.406)  # ImageNet's mean colour, which the detector's normalization turns into 0
SCALES = (0.5, 2.0)  # smallest and greatest factor of "scale"
MIN_SIDE = 8  # pixels; smaller images are neither scaled nor cropped


def _chance(generator: torch.Generator, probability: float) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _seeded(function: Callable, generator: torch.Generator, *arguments):
    """Calls what draws from torch's global generator with a state that comes from ``generator``."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU only; torch.manual_seed would change the GPU's, too
        return function(*arguments)


def _plain(value: Tensor) -> Tensor:
    return value.as_subclass(Tensor)


def flip(sample: Sample, generator: torch.Generator, *, vertical: bool, pairs: Sequence[int] = ()) -> Sample:
    """Mirrors left and right, or top and bottom, with probability 0.5.

    ``pairs`` gives for each keypoint the number of the one that it becomes: a mirrored left hand is a right hand.
    """
    if not _chance(generator, 0.5):
        return sample
    image, target = sample
    target = dict(target)
    mirror = functional.vertical_flip if vertical else functional.horizontal_flip
    size = tuple(image.shape[-2:])
    target["boxes"] = _plain(mirror(BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)))
    if "masks" in target:
        target["masks"] = _plain(mirror(Mask(target["masks"])))
    if "keypoints" in target and len(target["keypoints"]):
        if len(pairs) != target["keypoints"].shape[1]:
            raise ValueError(f"there are {target['keypoints'].shape[1]} keypoints, but keypoint_names has {len(pairs)}")
        points = target["keypoints"][:, list(pairs)]
        axis = 1 if vertical else 0
        points[..., axis] = size[1 - axis] - 1 - points[..., axis]  # keypoints are at centres of pixels
        target["keypoints"] = _hidden(points)
    # A very narrow box may be none any more at the other side, where float32 is coarser.
    return mirror(image), select(target, _has_sides(target["boxes"]))


def change_colour(sample: Sample, generator: torch.Generator) -> Sample:
    """Brightness times 0.8 to 1.2, contrast and saturation times 0.7 to 1.3, in random order."""
    image, target = sample
    jitter = v2.ColorJitter(brightness=0.2, contrast=0.3, saturation=0.3)
    return _seeded(jitter, generator, image), target


def scale(sample: Sample, generator: torch.Generator) -> Sample:
    """Objects 0.5 to 2 times as large in an image of the same size: a window of it enlarged, or all of it on a canvas.

    This is large scale jitter (https://arxiv.org/abs/2012.07177), which keeps the image's size because the detector
    resizes every image to one size.
    """
    image, _ = sample
    height, width = image.shape[-2:]
    if min(height, width) < MIN_SIDE:
        return sample
    factor = SCALES[0] * (SCALES[1] / SCALES[0]) ** _uniform(generator, 0, 1)
    down, right = _uniform(generator, 0, 1), _uniform(generator, 0, 1)
    if factor >= 1:
        inner = (max(1, round(height / factor)), max(1, round(width / factor)))
        top, left = round(down * (height - inner[0])), round(right * (width - inner[1]))
        sample = _cropped(sample, top, left, *inner)
        return _moved(sample, partial(_resized, size=(height, width)))
    inner = (max(1, round(height * factor)), max(1, round(width * factor)))
    top, left = round(down * (height - inner[0])), round(right * (width - inner[1]))
    sample = _moved(sample, partial(_resized, size=inner))
    padding = [left, top, width - inner[1] - left, height - inner[0] - top]
    return _moved(sample, partial(_padded, padding=padding))


def crop(sample: Sample, generator: torch.Generator) -> Sample:
    """A random window that holds the centre of at least one object (torchvision's RandomIoUCrop, of SSD)."""
    image, target = sample
    if min(image.shape[-2:]) < MIN_SIDE or not len(target["boxes"]):
        return sample
    boxes = BoundingBoxes(target["boxes"], format="XYXY", canvas_size=tuple(image.shape[-2:]))
    window = _seeded(v2.RandomIoUCrop().make_params, generator, [image, boxes])
    if not window:  # one of the options that it draws is the whole image
        return sample
    return _cropped(sample, window["top"], window["left"], window["height"], window["width"])


def _cropped(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    image, target = sample
    target = dict(target)
    offset = target["boxes"].new_tensor([left, top])
    boxes = target["boxes"] - offset.repeat(2)
    limit = boxes.new_tensor([width, height]).repeat(2)
    target["boxes"] = boxes.minimum(limit).clamp(min=0)
    if "masks" in target:
        target["masks"] = target["masks"][:, top : top + height, left : left + width]
    if "keypoints" in target:
        points = target["keypoints"].clone()
        points[..., :2] -= offset
        inside = ((points[..., :2] >= 0) & (points[..., :2] <= limit[:2] - 1)).all(dim=-1)
        points[..., 2] *= inside
        target["keypoints"] = _hidden(points)
    return image[:, top : top + height, left : left + width], _with_area(target)


def _moved(sample: Sample, move: Callable) -> Sample:
    """``move`` gives image or masks in a new place or size, and the factor and offset (x, y) by which points move."""
    image, target = sample
    target = dict(target)
    moved, factor, offset = move(image)
    factor, offset = target["boxes"].new_tensor(factor), target["boxes"].new_tensor(offset)
    target["boxes"] = target["boxes"] * factor.repeat(2) + offset.repeat(2)
    if "masks" in target:
        target["masks"] = move(target["masks"])[0]
    if "keypoints" in target:
        points = target["keypoints"].clone()
        points[..., :2] = (points[..., :2] + 0.5) * factor + offset - 0.5
        target["keypoints"] = _hidden(points)
    return moved, _with_area(target)


def _resized(value: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[float, float], tuple[float, float]]:
    factor = (size[1] / value.shape[-1], size[0] / value.shape[-2])
    if value.is_floating_point():
        return functional.resize(value, list(size), antialias=True).clamp(0, 1), factor, (0, 0)
    if not len(value):
        return value.new_zeros((0, *size)), factor, (0, 0)
    # Not as a tv_tensors.Mask, which is resized by "nearest": that shifts masks by up to half a pixel.
    return functional.resize(value, list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT), factor, (0, 0)


def _padded(value: Tensor, padding: list[int]) -> tuple[Tensor, tuple[float, float], tuple[float, float]]:
    offset = (padding[0], padding[1])
    if value.is_floating_point():
        return functional.pad(value, padding, fill=list(PAD)), (1, 1), offset
    return torch.nn.functional.pad(value, (padding[0], padding[2], padding[1], padding[3])), (1, 1), offset


def _with_area(target: dict) -> dict:
    """The target without objects that lost all their area, boxes cut to what is left of the masks, areas anew."""
    boxes = target["boxes"]
    keep = _has_sides(boxes)
    if "masks" not in target:
        target = select(target, keep)
        boxes = target["boxes"]
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    else:
        target = select(target, keep & (target["masks"].amax(dim=(1, 2)) > 0))
        rows, columns = target["masks"].any(dim=2), target["masks"].any(dim=1)
        target = {**target, "boxes": torch.stack(_ends(columns, rows), dim=1)}
        area = target["masks"].flatten(1).sum(dim=1)
    return {**target, "area": area.float()} if "area" in target else target


def _has_sides(boxes: Tensor) -> Tensor:
    """Whether each box (n, 4) is wide and high enough for a detector's loss, (n,) bool."""
    return (boxes[:, 2:] - boxes[:, :2] >= SMALLEST).all(dim=1)


def _ends(columns: Tensor, rows: Tensor) -> list[Tensor]:
    """Edges x1, y1, x2, y2, each (n,) float32, of what is true along columns (n, W) and rows (n, H)."""
    starts = [part.byte().argmax(dim=1).float() for part in (columns, rows)]
    ends = [part.shape[1] - part.flip(1).byte().argmax(dim=1).float() for part in (columns, rows)]
    return starts + ends


def _hidden(points: Tensor) -> Tensor:
    """Keypoints that are not in the image are 0, 0, 0, as COCO writes them."""
    return points * (points[..., 2:] > 0)


def _flip_factory(vertical: bool) -> Callable[[Sequence[str] | None], Transform]:
    return lambda names: partial(flip, vertical=vertical, pairs=mirrored_keypoints(names or ()))


# From names of keypoints, or None, to the transform.
AUGMENTATIONS: dict[str, Callable[[Sequence[str] | None], Transform]] = {
    "flip": _flip_factory(vertical=False),
    "flip-vertical": _flip_factory(vertical=True),
    "colour": lambda names: change_colour,
    "scale": lambda names: scale,
    "crop": lambda names: crop,
}
TRAINING = ("flip", "colour")
# The coins lie any way up.
TRAINING_COINS = ("flip", "flip-vertical", "colour")


def make_transforms(names: Sequence[str], keypoint_names: Sequence[str] | None = None) -> list[Transform]:
    """The augmentations of these names, in this order, each a callable (sample, generator) -> sample.

    Args:
        names: of ``AUGMENTATIONS``.
        keypoint_names: of the data set, where it has keypoints; mirroring swaps left and right by them.

    Raises:
        ValueError: for an unknown name, or keypoints without a counterpart where images are mirrored.
    """
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"augmentation {unknown[0]!r} is none of {', '.join(AUGMENTATIONS)}")
    transforms = [AUGMENTATIONS[name](keypoint_names) for name in names]
    if any(name.startswith("flip") for name in names):
        _warn_of_sides(keypoint_names or ())
    return transforms


def _warn_of_sides(names: Sequence[str]) -> None:
    if len(names) > 1 and mirrored_keypoints(names) == list(range(len(names))):
        warnings.warn(
            f"images are mirrored, but none of the keypoints {', '.join(names)} is a left or right one: each keeps its "
            "name; leave the augmentation flip out if that is wrong",
            stacklevel=3,
        )
