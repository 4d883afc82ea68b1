"""Memory: one copy of an image's masks, and annotations that worker processes share."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detection.data.coco_dataset import CocoInstances
from detection.data.packed import Packed
from PIL import Image

linux = pytest.mark.skipif(sys.platform != "linux", reason="measures by what /proc says")


def measure(kind: str, folder: Path) -> list[int]:
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("memory.py"), kind, folder],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return [int(word) for word in run.stdout.split()]


@linux
def test_there_is_one_copy_of_the_masks(make_coco):
    """400 large objects at 2000 x 1500: 1.2 GB of masks."""
    runs = [3_000 * 1_500 // 6, 1_500_000 - 1500 * 500 // 2]
    runs.append(3_000_000 - sum(runs))
    large = {"size": [1500, 2000], "counts": runs}
    image = {"id": 1, "file_name": "large.png", "height": 1500, "width": 2000}
    folder, _ = make_coco([{"segmentation": large}] * 400, images=[image])
    Image.new("L", (2000, 1500)).save(folder / "large.png")
    peak, masks = measure("sample", folder.parent)
    assert masks == 400 * 2000 * 1500
    assert 0.5 * masks < peak < 1.25 * masks


@linux
def test_a_worker_shares_the_annotations(make_coco):
    """They grow by less than 1 MB; dicts would be copied, 140 MB for these."""
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    circle = np.stack([140 + 40 * np.cos(angles), 140 + 40 * np.sin(angles)], axis=1).round(2).flatten().tolist()
    entry = {"category_id": 5, "bbox": [100, 100, 80, 80], "area": 5000.5, "iscrowd": 0, "segmentation": [circle]}
    annotations = [{**entry, "id": number, "image_id": number // 10} for number in range(60_000)]
    images = [{"id": number, "file_name": f"{number}.png", "height": 480, "width": 640} for number in range(6_000)]
    folder, path = make_coco(annotations[:1])
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    grown, count = measure("worker", folder.parent)
    assert count == 60_000
    assert grown < 12e6


def test_packed_items_come_back():
    items = [[], {"a": [1.5, None, "ä"]}, "text", 2**70]
    packed = Packed(items)
    assert (packed.data.dtype, packed.offsets.dtype, len(packed)) == (np.uint8, np.int64, 4)
    assert [packed[index] for index in range(4)] == items
    for index in (-1, 4):
        with pytest.raises(IndexError):
            packed[index]
    assert len(Packed([])) == 0


def test_a_data_set_can_be_sent_to_a_spawned_worker(coco):
    dataset = CocoInstances(*coco)
    again = pickle.loads(pickle.dumps(dataset))
    assert again[1][1]["masks"].equal(dataset[1][1]["masks"])
