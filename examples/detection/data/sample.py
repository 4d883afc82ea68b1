"""Samples: an image and its target, checked whatever data set they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detection.data.boxes import NEAR, SMALLEST
from detection.data.errors import DamagedSampleError

Sample = tuple[Tensor, dict[str, Any]]
Transform = Callable[[Sample, torch.Generator], Sample]
TARGETS = ("masks", "boxes", "keypoints")
# Entries of a target that have one row for each object.
PER_OBJECT = ("boxes", "labels", "masks", "keypoints", "iscrowd", "area")


def select(target: dict[str, Any], keep: Tensor) -> dict[str, Any]:
    """The target with those objects for which ``keep`` (n,) bool is true."""
    if bool(keep.all()):
        return target
    return {name: value[keep] if name in PER_OBJECT else value for name, value in target.items()}


def checked(
    sample: Any,
    name: str,
    classes: int,
    targets: str,
    max_ratio: float | None = None,
    *,
    keypoints: int | None = None,
) -> Sample:
    """The sample as a detector needs it: boxes and area float32, labels and iscrowd int64, masks uint8, image_id int.

    Masks or keypoints that ``targets`` does not ask for are left out. A sample without objects may lack them.

    Args:
        sample: image (3, H, W) floating, 0..1, and target with ``boxes`` (n, 4) x1 y1 x2 y2 in pixels and ``labels``
            (n,), and as ``targets`` says ``masks`` (n, H, W) of 0 and 1 or ``keypoints`` (n, K, 3).
        name: of the sample, for messages.
        classes: number of classes; labels are 1 to ``classes``.
        targets: "masks", "boxes" or "keypoints".
        max_ratio: greatest allowed ratio of the image's sides.
        keypoints: the number K of keypoints of an object, where it is known.

    Raises:
        DamagedSampleError: naming the sample, what is wrong and what is allowed.
    """
    try:
        if not isinstance(sample, (tuple, list)) or len(sample) != 2 or not isinstance(sample[1], dict):
            raise ValueError(f"it is {_kind(sample)}; a sample must be (image, target) with a dict as target")
        image, target = sample
        size = _image_size(image, max_ratio)
        target = {key: value for key, value in target.items() if key not in ("masks", "keypoints") or key == targets}
        target["boxes"] = _boxes(_tensor(target, "boxes"), size)
        # CocoInstances has looked at all boxes of its JSON; a tiny object in a corner need not be a mistake.
        if "ignored_boxes" not in target:
            _refuse_normalised(target["boxes"], size)
        count = len(target["boxes"])
        target["labels"] = _integers(target, "labels", count)
        wrong = target["labels"][(target["labels"] < 1) | (target["labels"] > classes)]
        if len(wrong):
            raise ValueError(f"label {int(wrong[0])} is none of 1 to {classes}, the number of class_names")
        if targets == "masks":
            empty = {"masks": torch.zeros(0)} if count == 0 else {}
            target["masks"] = _masks(_tensor({**empty, **target}, "masks"), (count, *size))
        if targets == "keypoints":
            empty = {"keypoints": torch.zeros(0)} if count == 0 else {}
            target["keypoints"] = _keypoints(_tensor({**empty, **target}, "keypoints"), count, keypoints)
        if "iscrowd" in target:
            target["iscrowd"] = _integers(target, "iscrowd", count)
        if "area" in target:
            area = _tensor(target, "area").float()
            if area.shape != (count,):
                raise ValueError(f"its area is of shape {tuple(area.shape)}; it must be ({count},), as there are boxes")
            target["area"] = area
        if torch.is_tensor(target.get("image_id")):
            if target["image_id"].numel() != 1:
                raise ValueError(f"its image_id is of shape {tuple(target['image_id'].shape)}; it must be one number")
            target["image_id"] = int(target["image_id"])
    except ValueError as error:
        raise DamagedSampleError(f"{name}: {error}") from error
    return image.as_subclass(torch.Tensor).float(), target


def check_ratio(size: tuple[int, int], max_ratio: float | None) -> None:
    """Raises ValueError where the sides (H, W) are so unequal that the detector would resize the shorter one to 0."""
    if max_ratio is not None and max(size) > max_ratio * min(size):
        raise ValueError(
            f"the image's sides, {size[1]} x {size[0]} (width x height), are of a ratio of "
            f"{max(size) / min(size):.0f} to 1; at most {max_ratio:g} to 1 is possible, the shorter one would vanish"
        )


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} of length {len(value)}" if isinstance(value, (tuple, list)) else str(type(value))


def _tensor(target: dict[str, Any], key: str) -> Tensor:
    if key not in target:
        raise ValueError(f"its target has no {key!r}, only {', '.join(map(str, target)) or 'nothing'}")
    value = target[key]
    if not torch.is_tensor(value):
        raise ValueError(f"its {key} are {type(value)}; they must be a tensor")
    return value.as_subclass(torch.Tensor)  # not a tv_tensor, whose operations are slower


def _image_size(image: Any, max_ratio: float | None) -> tuple[int, int]:
    if not torch.is_tensor(image) or image.dim() != 3 or len(image) != 3 or 0 in image.shape:
        found = f"of shape {tuple(image.shape)}" if torch.is_tensor(image) else str(type(image))
        raise ValueError(f"its image is {found}; it must be a tensor (3, H, W)")
    if not image.is_floating_point():
        raise ValueError(f"its image is of {image.dtype}; it must be floating with values in 0..1")
    low, high = (float(value) for value in torch.aminmax(image))
    if not (low >= -0.01 and high <= 1.01):  # NaN fails, too
        raise ValueError(f"its image has values from {low:.4g} to {high:.4g}; they must be in 0..1")
    size = (image.shape[1], image.shape[2])
    check_ratio(size, max_ratio)
    return size


def _boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    boxes = boxes.float().reshape(0, 4) if boxes.numel() == 0 else boxes.float()
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"its boxes are of shape {tuple(boxes.shape)}; they must be (n, 4)")
    good = boxes.isfinite().all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if not good.all():
        wrong = int(torch.nonzero(~good)[0])
        raise ValueError(f"box {wrong} is {boxes[wrong].tolist()}; it must be x1 y1 x2 y2 with x1 < x2 and y1 < y2")
    sides = boxes.new_tensor([size[1], size[0]])
    where = f"the image of {size[1]} x {size[0]} pixels (width x height)"
    inside = boxes.clamp(min=0).minimum(sides.repeat(2))
    left = (inside[:, 2:] - inside[:, :2]).amin(dim=1)
    outside = ((boxes[:, :2] >= sides) | (boxes[:, 2:] <= 0)).any(dim=1)
    beyond = ((boxes - inside).abs() > NEAR + 0.01 * sides.repeat(2)).any(dim=1)
    for wrong, reason in (
        (outside, f"is not in {where}"),
        (beyond, f"reaches beyond {where}"),
        (left < SMALLEST, f"is less than {SMALLEST} pixels wide or high within {where}"),
    ):
        if wrong.any():
            number = int(torch.nonzero(wrong)[0])
            raise ValueError(f"box {number}, {boxes[number].tolist()}, {reason}; boxes are x1 y1 x2 y2 in pixels")
    return boxes


def _refuse_normalised(boxes: Tensor, size: tuple[int, int]) -> None:
    if len(boxes) and max(size) > 2 and float(boxes.min()) >= 0 and float(boxes.max()) <= 1:
        raise ValueError(
            f"all its boxes lie within 0 and 1, the first is {boxes[0].tolist()}: they are normalised; they must be in "
            f"pixels of the image of {size[1]} x {size[0]} (width x height)"
        )


def _integers(target: dict[str, Any], key: str, count: int) -> Tensor:
    values = _tensor(target, key)
    if values.numel() == 0:
        values = values.reshape(0).long()
    if values.shape != (count,) or values.is_floating_point() or values.is_complex():
        raise ValueError(
            f"its {key} are {values.dtype} of shape {tuple(values.shape)}; "
            f"they must be integers ({count},), as there are boxes"
        )
    return values.long()


def _masks(masks: Tensor, shape: tuple[int, int, int]) -> Tensor:
    if masks.numel() == 0 and shape[0] == 0:
        masks = masks.reshape(shape)
    if tuple(masks.shape) != shape:
        raise ValueError(
            f"its masks are of shape {tuple(masks.shape)}; they must be {shape}, one for each box, of the image's size"
        )
    if masks.dtype not in (torch.uint8, torch.bool):
        whole = masks.to(torch.uint8)
        if not torch.equal(whole.to(masks.dtype), masks):
            raise ValueError("its masks have values other than 0 and 1")
        masks = whole
    masks = masks.to(torch.uint8)
    greatest = masks.flatten(1).amax(dim=1) if len(masks) else masks.new_zeros(0)
    if (greatest > 1).any():
        raise ValueError("its masks have values other than 0 and 1")
    if (greatest == 0).any():
        raise ValueError(f"mask {int(torch.nonzero(greatest == 0)[0])} is empty: it has no pixel that is 1")
    return masks


def _keypoints(keypoints: Tensor, count: int, number: int | None) -> Tensor:
    keypoints = keypoints.float()
    if count == 0 and keypoints.numel() == 0 and (keypoints.dim() < 3 or number is not None):
        keypoints = keypoints.reshape(0, number or 0, 3)
    if keypoints.dim() != 3 or len(keypoints) != count or keypoints.shape[2] != 3:
        wanted = "K" if number is None else number
        raise ValueError(
            f"its keypoints are of shape {tuple(keypoints.shape)}; they must be ({count}, {wanted}, 3), as there are "
            "boxes"
        )
    if number is not None and keypoints.shape[1] != number:
        raise ValueError(f"its objects have {keypoints.shape[1]} keypoints; there are {number} keypoint_names")
    if not keypoints.isfinite().all():
        raise ValueError("its keypoints have values that are not finite")
    return keypoints
