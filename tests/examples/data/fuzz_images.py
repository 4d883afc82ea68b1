"""Image files damaged at random, for fuzz.py."""

from __future__ import annotations

import io
import random
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from detection.data.images import image_size, read_image
from PIL import Image


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
