"""Annotations damaged at random, for fuzz.py."""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from detection.data.check import check
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError
from detection.data.sample import checked
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (24, 30)
ODD = [None, True, False, 0, 1, -1, 3, 7.5, -0.0, 1e-300, 1e9, -1e9, 1e308, 2**31, 2**32, 2**63, -(2**63), 10**400]
ODD += [float("nan"), float("inf"), -float("inf"), "", "1", "nan", "\0", "ä", "\ud800", "o" * 50, "0" * 5000]
ODD += [[], {}, [[]], [None], [[1, 2]], [[1, 2, 3]], {"size": [24, 30]}, {"counts": "x"}, [[0.0, 0, 29, 23] * 400]]
ODD += [[0] * 900, [720], [2**32, 720], [[[1, 2], [3, 4], [5, 6]]]]


def good_annotation(rng: random.Random) -> dict:
    x, y, width, height = rng.uniform(0, 15), rng.uniform(0, 12), rng.uniform(3, 14), rng.uniform(3, 11)
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([outline], *SIZE)))
    flat = mask.flatten("F")
    runs = np.diff(np.flatnonzero(np.diff(flat, prepend=2, append=2))).tolist()
    segmentation = rng.choice(
        [
            [outline],
            [outline, [x, y, x + 2, y, x, y + 2]],
            {"size": list(SIZE), "counts": ([0] if flat[0] else []) + runs},
            {"size": list(SIZE), "counts": coco_mask.encode(np.asfortranarray(mask))["counts"].decode()},
        ]
    )
    return {
        "id": rng.randrange(5),
        "image_id": 1,
        "category_id": rng.choice([3, 9]),
        "iscrowd": rng.randrange(2),
        "area": width * height,
        "bbox": [x, y, width, height],
        "segmentation": segmentation,
        "keypoints": [x, y, 2, x + width, y, 1, 0, 0, 0],
        "num_keypoints": 2,
    }


def places(value, path=()):
    """Paths to all parts of a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


def mutate(annotation: dict, rng: random.Random):
    annotation = copy.deepcopy(annotation)
    for _ in range(rng.choice([1, 1, 2, 4])):
        path = rng.choice(list(places(annotation)))
        if not path:
            if rng.random() < 0.05:
                return rng.choice(ODD)
            continue
        holder = annotation
        for key in path[:-1]:
            holder = holder[key]
        old = holder[path[-1]]
        kind = rng.randrange(5)
        if kind == 0:
            del holder[path[-1]]
        elif kind == 1 and isinstance(old, (int, float)):
            near, far = old + rng.choice([-1, 1, 0.5, 10, -10]), old * rng.choice([2, 100, 1e6])
            holder[path[-1]] = rng.choice([-old, near, far])
        elif kind == 1 and isinstance(old, str):
            place = rng.randrange(len(old) + 1)
            changed = old[:place] + chr(rng.randrange(40, 120)) + old[place + 1 :]
            holder[path[-1]] = rng.choice([old[:place], old[place:], changed])
        elif kind == 2 and isinstance(old, list):
            holder[path[-1]] = rng.choice([old[: rng.randrange(len(old) + 1)], old + old, old[::-1], old * 30])
        elif kind == 3:
            holder[path[-1]] = rng.choice([[old], str(old), {"0": old}])
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(ODD))
    return annotation


def check_good(sample, targets: str, annotations: int) -> str:
    image, target = checked(sample, "sample", 2, targets)
    height, width = image.shape[1:]
    boxes = target["boxes"]
    count = len(boxes)
    assert bool((boxes >= 0).all()) and bool((boxes <= boxes.new_tensor([width, height] * 2)).all()), boxes
    assert bool(((target["area"] > 0) & target["area"].isfinite()).all()), target["area"]
    assert bool(((target["iscrowd"] == 0) | (target["iscrowd"] == 1)).all())
    assert count + target["skipped"] + target["dropped"] == annotations
    if targets == "masks":
        assert bool((target["masks"].flatten(1).sum(1) > 0).all())
    if targets == "keypoints":
        assert target["keypoints"].shape == (count, 3, 3)
    return "object" if count else "dropped" if target["dropped"] else "damaged" if target["skipped"] else "stray"


def fuzz_annotations(count: int, seed: int, folder: Path) -> Counter:
    rng = random.Random(seed)
    outcomes: Counter = Counter()
    block = min(count, 100)
    (folder / "images").mkdir()
    for number in range(block):
        Image.new("RGB", SIZE[::-1], (number, 50, 200)).save(folder / "images" / f"{number}.png")
    names = ["nose", "left", "right"]
    categories = [{"id": number, "name": f"class {number}", "keypoints": names} for number in (3, 9)]
    stated = {"height": SIZE[0], "width": SIZE[1]}
    images = [{"id": number, "file_name": f"{number}.png", **stated} for number in range(block)]
    for first in range(0, count, block):
        annotations = []
        for number in range(min(block, count - first)):
            annotations.append(mutate({**good_annotation(rng), "image_id": number}, rng))
        # So that there always is a segmentation.
        annotations.append({**good_annotation(rng), "image_id": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]})
        path = folder / "instances.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        targets = rng.choice(["masks", "masks", "boxes", "keypoints"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = CocoInstances(folder / "images", path, "skip", targets=targets)
            report = check(dataset, progress=False)
            assert report.annotations == len(annotations)
            found = 0
            for index in range(min(block, count - first)):
                dataset.damaged = "skip"
                sample = dataset.read(index)
                outcomes[check_good(sample, targets, dataset.count(index))] += 1
                found += sample[1]["skipped"]
                dataset.damaged = "refuse"
                try:
                    dataset.read(index)
                    assert not sample[1]["skipped"]
                except DamagedSampleError as error:
                    assert sample[1]["skipped"]
                    assert f"{index}.png: annotation" in str(error)
            assert found + len(dataset.stray) == report.damaged_annotations
    return outcomes
