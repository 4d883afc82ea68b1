"""The embedded data set: scikit-image's photograph of 24 coins as a small COCO data set.

Masks come from the marker-based watershed of scikit-image's documentation. The lowest row of coins is held out:
training crops are cut above a line that runs between the rows, so no pixel of the held-out part is trained on.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

COINS = 24
BACKGROUND, FOREGROUND = 30, 150  # watershed markers: grey values below the first, above the second
MIN_PIXELS = 500  # of a coin; the smallest has about 1100
HELD_OUT_ROW = 225  # first image row of the held-out part, between the third and the fourth row of coins
CROP = (96, 192)  # height and width of a training crop
TRAINING_CROPS = 192
MIN_VISIBLE = 0.35  # share of a coin's area in a crop below which it is no instance
VERSION = 2  # a data set of another version is made anew


@dataclass(frozen=True)
class Split:
    """Where the images and the annotations of one part lie."""

    images: Path
    annotations: Path


def photograph() -> np.ndarray:
    """The photograph, (303, 384) uint8; it ships with scikit-image."""
    from skimage.data import coins

    return coins()


def instance_masks(photo: np.ndarray) -> np.ndarray:
    """Masks of the coins, (24, H, W) bool, by watershed on the gradient image."""
    from scipy import ndimage
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    markers = np.zeros(photo.shape, dtype=np.int32)
    markers[photo < BACKGROUND] = 1
    markers[photo > FOREGROUND] = 2
    coins = ndimage.binary_fill_holes(watershed(sobel(photo), markers) == 2)
    labels, count = ndimage.label(coins)
    masks = [labels == label for label in range(1, count + 1)]
    masks = [mask for mask in masks if mask.sum() >= MIN_PIXELS]
    if len(masks) != COINS:
        raise RuntimeError(f"the watershed found {len(masks)} coins, expected {COINS}: is this another photograph?")
    return np.stack(masks)


def _annotation(mask: np.ndarray, number: int, image: int) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "area": float(mask.sum()),
        "bbox": [float(value) for value in coco_mask.toBbox(encoded)],
        "segmentation": {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")},
    }


def _write_split(folder: Path, name: str, samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """``samples``: photograph (h, w) and masks (n, h, w) of each image."""
    images, annotations = [], []
    (folder / name).mkdir(parents=True)
    for index, (photo, masks) in enumerate(samples, 1):
        file_name = f"coins_{index:03d}.png"
        Image.fromarray(photo).convert("RGB").save(folder / name / file_name)
        height, width = photo.shape
        images.append({"id": index, "file_name": file_name, "height": height, "width": width})
        for mask in masks:
            annotations.append(_annotation(mask, len(annotations) + 1, index))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "coin"}]}
    (folder / f"instances_{name}.json").write_text(json.dumps(content), encoding="utf-8")


def _training_crops(photo: np.ndarray, masks: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(seed)
    areas = masks.sum(axis=(1, 2))
    crops = []
    while len(crops) < TRAINING_CROPS:
        top = int(generator.integers(0, photo.shape[0] - CROP[0] + 1))
        left = int(generator.integers(0, photo.shape[1] - CROP[1] + 1))
        window = (slice(top, top + CROP[0]), slice(left, left + CROP[1]))
        cut = masks[:, window[0], window[1]]
        visible = cut.sum(axis=(1, 2)) / areas
        if (visible >= MIN_VISIBLE).any():
            crops.append((photo[window], cut[visible >= MIN_VISIBLE]))
    return crops


def make(folder: Path, seed: int = 0) -> dict[str, Split]:
    """Makes the data set in ``folder`` unless it is there: parts "train" and "val". A kill leaves no half-made one."""
    splits = {name: Split(folder / name, folder / f"instances_{name}.json") for name in ("train", "val")}
    marker = folder / "version"
    if marker.exists() and marker.read_text(encoding="utf-8") == f"{VERSION} {seed}":
        return splits
    photo = photograph()
    masks = instance_masks(photo)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    upper = masks[:, :HELD_OUT_ROW]
    upper = upper[upper.any(axis=(1, 2))]
    lower = masks[:, HELD_OUT_ROW:]
    lower = lower[lower.any(axis=(1, 2))]
    if len(upper) + len(lower) != COINS:
        raise RuntimeError(f"row {HELD_OUT_ROW} cuts through a coin")
    _write_split(unfinished, "train", _training_crops(photo[:HELD_OUT_ROW], upper, seed))
    _write_split(unfinished, "val", [(photo[HELD_OUT_ROW:], lower)])
    (unfinished / "version").write_text(f"{VERSION} {seed}", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
    return splits
