"""Damages annotations and image files at random; whatever comes out must be a good sample or an error that names it.

    OMP_NUM_THREADS=1 python tests/examples/data/fuzz.py annotations 5000 0
    OMP_NUM_THREADS=1 python tests/examples/data/fuzz.py images 2000 0

The second number is the seed. Memory is limited to 1 GB more than the libraries need, time to 10 minutes of the CPU. A
file or an annotation that ends the process is left in the temporary folder whose name is printed first.
"""

from __future__ import annotations

import copy
import io
import json
import random
import resource
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))

import numpy as np
import torch
from detection.data.check import check
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError
from detection.data.images import image_size, read_image
from detection.data.sample import checked
from PIL import Image
from pycocotools import mask as coco_mask

SIZE = (24, 30)
MEMORY, SECONDS = 1 << 30, 600
ODD = [None, True, False, 0, 1, -1, 3, 7.5, -0.0, 1e-300, 1e9, -1e9, 1e308, 2**31, 2**32, 2**63, -(2**63), 10**400]
ODD += [float("nan"), float("inf"), -float("inf"), "", "1", "nan", "\0", "ä", "\ud800", "o" * 50, "0" * 5000]
ODD += [[], {}, [[]], [None], [[1, 2]], [[1, 2, 3]], {"size": [24, 30]}, {"counts": "x"}, [[0.0, 0, 29, 23] * 400]]
ODD += [[0] * 900, [720], [2**32, 720], [[[1, 2], [3, 4], [5, 6]]]]


def limit() -> None:
    """From now on: memory by the gigabyte on top of what is mapped, seconds of the CPU."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


# Annotations


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


# Image files


def good_files(rng: random.Random) -> list[tuple[str, bytes]]:
    noise = np.random.default_rng(rng.randrange(1 << 30))
    colours = np.kron(noise.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((5, 4, 1), dtype=np.uint8))
    rgb, grey, deep = Image.fromarray(colours), Image.fromarray(colours[..., 0]), np.uint16(colours[..., 0]) * 200
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(1, 9)
    exif[0x010E] = "description"
    options = [
        ("PNG", rgb, {"exif": exif}),
        ("PNG", rgb.quantize(16), {"transparency": bytes(range(16))}),
        ("PNG", Image.fromarray(deep), {}),
        ("PNG", rgb.convert("RGBA"), {"save_all": True, "append_images": [rgb.convert("RGBA").rotate(90)]}),
        ("JPEG", rgb, {"exif": exif}),
        ("JPEG", rgb, {"progressive": True}),
        ("JPEG", rgb.convert("CMYK"), {}),
        ("TIFF", rgb, {"exif": exif}),
        ("TIFF", grey, {"exif": exif}),
        ("TIFF", Image.fromarray(deep), {}),
        ("TIFF", rgb, {"compression": "tiff_lzw"}),
        ("TIFF", rgb, {"compression": "jpeg"}),
        ("TIFF", rgb.convert("1"), {"compression": "group4"}),
        ("WEBP", rgb, {"exif": exif}),
        ("WEBP", rgb, {"lossless": True}),
        ("GIF", rgb.quantize(16), {"save_all": True, "append_images": [rgb.quantize(8)]}),
        ("BMP", rgb, {}),
        ("BMP", rgb.quantize(16), {}),
        ("PPM", rgb, {}),
        ("PPM", grey, {}),
        ("PPM", Image.fromarray(deep), {}),
        ("JPEG2000", rgb, {}),
        ("TGA", rgb, {"compression": "tga_rle"}),
    ]
    files = []
    for name, image, more in options:
        stream = io.BytesIO()
        try:
            image.save(stream, name, **more)
        except (KeyError, OSError):  # this Pillow was built without
            continue
        files.append((name, stream.getvalue()))
    return files


def mutate_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        # Most of the structure is at the start.
        place = min(int(rng.expovariate(1 / 40)), len(data) - 1) if rng.random() < 0.6 else rng.randrange(len(data))
        kind = rng.randrange(8)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            for _ in range(rng.randrange(1, 20)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[place] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif kind == 3:
            number = rng.choice([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, 20000, rng.randrange(1 << 32)])
            width = rng.choice([2, 4])
            data[place : place + width] = (number & (256**width - 1)).to_bytes(width, rng.choice(["big", "little"]))
        elif kind == 4:
            cut = rng.randrange(1, 60)
            data = bytearray(other[:cut]) + data[rng.choice([cut, 0]) :]
        elif kind == 5:
            data = data[:place] + bytearray(other[rng.randrange(len(other)) :])
        elif kind == 6:
            del data[place : place + rng.randrange(1, 20)]
        else:
            data[place:place] = data[place : place + rng.randrange(1, 200)]
        if not data:
            break
    return bytes(data)


def with_checksums(data: bytes) -> bytes:
    """A PNG file with the checksums of its chunks made right, so that damage gets past them."""
    data, place = bytearray(data), 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(data)


def fuzz_images(count: int, seed: int, folder: Path) -> Counter:
    rng = random.Random(seed)
    files = good_files(rng)
    outcomes: Counter = Counter()
    path = folder / "image"
    for number in range(count):
        if number and number % 200 == 0:
            files = good_files(rng)
        name, data = rng.choice(files)
        data = mutate_bytes(data, rng.choice(files)[1], rng)
        path.write_bytes(with_checksums(data) if name == "PNG" and rng.random() < 0.7 else data)
        sizes = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                sizes = image_size(path)
                image = read_image(path, rng.choice([None, *sizes]))
            except ValueError as error:
                assert type(error) is ValueError, error
                assert str(path) in str(error), error
                outcomes[f"{name} refused by its {'pixels' if sizes else 'header'}"] += 1
                continue
        assert (image.dtype, len(image)) == (torch.float32, 3)
        assert tuple(image.shape[1:]) in sizes, (image.shape, sizes)
        low, high = torch.aminmax(image)
        assert low >= 0 and high <= 1, (low, high)
        outcomes[f"{name} read"] += 1
    return outcomes


def main() -> None:
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(folder, flush=True)
    fuzz_images(30, 1, folder)  # loads all plugins of Pillow before the limit is set
    limit()
    outcomes = {"annotations": fuzz_annotations, "images": fuzz_images}[kind](count, seed, folder)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    print(json.dumps(dict(sorted(outcomes.items()))))


if __name__ == "__main__":
    main()
