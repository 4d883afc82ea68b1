"""A tiny COCO data set and a tiny model, so that the whole of the example runs in seconds."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

for _package in ("torchvision", "pycocotools", "skimage", "matplotlib", "tqdm"):
    if importlib.util.find_spec(_package) is None:
        collect_ignore_glob = ["test_*.py"]  # the examples need the extra `vision`

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


def write_coco(folder: Path, images: int = 3) -> tuple[Path, Path]:
    """Dark squares on light noise: polygons in the first image, RLE as a list in the others. (images, annotations)."""
    from PIL import Image

    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "square"}, {"id": 3, "name": "bar"}]}
    for number in range(1, images + 1):
        pixels = generator.integers(180, 255, (48, 64, 3), dtype=np.uint8)
        mask = np.zeros((48, 64), dtype=np.uint8)
        x, y = 5 * number, 6 + 3 * number
        mask[y : y + 16, x : x + 18] = 1
        pixels[mask > 0] //= 6
        name = f"image{number}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        content["images"].append({"id": 10 * number, "file_name": name, "height": 48, "width": 64})
        polygon = [[x, y, x + 18, y, x + 18, y + 16, x, y + 16]]
        flat = mask.T.flatten()  # COCO counts down the columns, zeros first
        changes = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
        content["annotations"].append(
            {
                "id": number,
                "image_id": 10 * number,
                "category_id": 7 if number % 2 else 3,
                "iscrowd": 0,
                "area": 16 * 18,
                "bbox": [x, y, 18, 16],
                "segmentation": polygon if number == 1 else {"size": [48, 64], "counts": counts},
            }
        )
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "images", folder / "instances.json"


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, Path]:
    return write_coco(tmp_path / "coco")


@pytest.fixture
def tiny_model():
    """Model options that build in milliseconds; classes in the order of their category ids."""
    from detection.models.options import COINS

    sizes = {
        "width": 8,
        "fpn_channels": 8,
        "head_channels": 8,
        "min_size": 48,
        "max_size": 64,
        "proposals": 20,
        "rois": 8,
    }
    return replace(COINS, class_names=("bar", "square"), dcn_stages=(False, False, False, True), **sizes)


@pytest.fixture
def tiny_training():
    from detection.training.options import TrainOptions

    return TrainOptions(iterations=4, batch=2, learning_rate=1e-3, warmup=2, workers=0, save_every=2)
