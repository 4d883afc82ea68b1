"""Polygons and run lengths: as pycocotools reads the good ones, an error for every other."""

from __future__ import annotations

import numpy as np
import pytest
from detection.data.segmentation import box_of, decode, encode, parse_counts
from pycocotools import mask as coco_mask

SIZE = (16, 20)


def random_mask(generator: np.random.Generator) -> np.ndarray:
    mask = generator.random(tuple(generator.integers(1, 40, 2))) < generator.choice([0, 0.02, 0.3, 0.9, 1])
    if generator.random() < 0.5:
        mask = np.kron(mask, np.ones((3, 4)))
    return np.asfortranarray(mask.astype(np.uint8))


def test_valid_run_lengths_are_read_as_pycocotools_does():
    generator = np.random.default_rng(0)
    for _ in range(1500):
        mask = random_mask(generator)
        expected = coco_mask.encode(mask)
        runs = parse_counts(expected["counts"]).tolist()
        with_zeros = list(runs)
        place = int(generator.integers(0, len(runs) + 1))
        with_zeros[place:place] = [0, 0] if len(runs) + 2 <= mask.size + 2 else []
        for counts in (expected["counts"], expected["counts"].decode(), runs, with_zeros):
            rle, dropped = encode({"size": list(mask.shape), "counts": counts}, mask.shape)
            assert rle["counts"] == expected["counts"]
            assert dropped == 0
            assert np.array_equal(decode(rle), mask)
        rows, columns = np.nonzero(mask)
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
        assert box_of(rle) == edges


def test_a_large_mask_has_counts_of_several_characters():
    mask = np.zeros((3000, 4000), dtype=np.uint8, order="F")
    mask[1000:2000, 100:3900] = 1
    mask[5, 3950] = 1
    rle, _ = encode({"size": [3000, 4000], "counts": coco_mask.encode(mask)["counts"]}, mask.shape)
    assert np.array_equal(decode(rle), mask)


def test_polygons_are_read_as_pycocotools_does():
    generator = np.random.default_rng(1)
    for _ in range(500):
        height, width = (int(side) for side in generator.integers(1, 60, 2))
        parts = [
            (generator.uniform(-1, 2, (int(generator.integers(3, 12)), 2)) * [width, height]).flatten().tolist()
            for _ in range(int(generator.integers(1, 4)))
        ]
        rle, dropped = encode(parts, (height, width))
        expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, height, width)))
        assert np.array_equal(decode(rle), expected)
        assert dropped == 0


def test_decode_fills_the_given_array_only_within_the_box():
    out = np.zeros((3, *SIZE), dtype=np.uint8)
    rle, _ = encode([[2, 3, 12, 3, 12, 9, 2, 9]], SIZE)
    assert decode(rle, out=out[1]).base is out
    assert out[1, 3:9, 2:12].all()
    assert out.sum() == 60


def test_useless_parts_are_dropped_and_counted(square):
    rle, dropped = encode([*square, [1, 1], [4, 4, 5, 5], []], SIZE)
    assert dropped == 3
    assert int(coco_mask.area(rle)) == 60
    rle, dropped = encode([[4, 4, 5, 5]], SIZE)
    assert (int(coco_mask.area(rle)), dropped) == (0, 1)
    assert not decode(rle).any()


DAMAGED = {
    "nan": ([[1, 1, float("nan"), 5, 5, 5]], "a polygon has x = nan"),
    "infinite": ([[1, 1, 9, float("inf"), 5, 5]], "a polygon has y = inf"),
    "huge": ([[1, 1, 1e9, 1, 5, 5]], r"x = 1000000000.0; the image's side is 20"),
    "huge integer": ([[1, 1, 10**400, 1, 5, 5]], r"x = 1000000.*\.\.\.; the image's side is 20"),
    "far left": ([[-21, 1, 9, 1, 5, 5]], "x = -21"),
    "text": ([["1", 1, 9, 1, 5, 5]], "no list of numbers"),
    "bool": ([[True, 1, 9, 1, 5, 5]], "no list of numbers"),
    "null": ([[None, 1, 9, 1, 5, 5]], "no list of numbers"),
    "points": ([[[1, 1], [9, 1], [5, 5]]], "no list of numbers"),
    "flat": ([1, 1, 9, 1, 5, 5], "no list of numbers"),
    "half a point": ([[1, 1, 9, 1, 5, 5, 7]], "has 7 numbers; they must be pairs"),
    "long outline": ([[0, 0, 19, 15] * 500], "outline is 19000 pixels long"),
    "no parts": ([], "neither polygons nor RLE"),
    "a text": ("abc", "neither polygons nor RLE"),
    "a number": (3, "neither polygons nor RLE"),
    "no size": ({"counts": [320]}, "no size of two whole numbers"),
    "text size": ({"size": ["16", "20"], "counts": [320]}, "no size of two whole numbers"),
    "another size": ({"size": [20, 16], "counts": [320]}, r"of size \(20, 16\), the image of \(16, 20\)"),
    "no counts": ({"size": [16, 20]}, "has no counts"),
    "short": ({"size": [16, 20], "counts": [300, 10]}, "do not add up"),
    "long": ({"size": [16, 20], "counts": [300, 10, 11]}, "do not add up"),
    "empty": ({"size": [16, 20], "counts": []}, "do not add up"),
    "negative": ({"size": [16, 20], "counts": [330, -10]}, "do not add up|negative"),
    "negative small": ({"size": [16, 20], "counts": [320, -1, 1]}, "negative"),
    "fractions": ({"size": [16, 20], "counts": [310.0, 10.0]}, "not all whole numbers"),
    "text counts": ({"size": [16, 20], "counts": ["310", 10]}, "not all whole numbers"),
    "bool counts": ({"size": [16, 20], "counts": [319, True]}, "not all whole numbers"),
    "huge count": ({"size": [16, 20], "counts": [10**30, 0]}, "do not add up"),
    "wrapped sum": ({"size": [16, 20], "counts": [2**32, 320]}, "do not add up"),
    "many zeros": ({"size": [16, 20], "counts": [0] * 400 + [320]}, "401 run lengths, too many"),
    "empty text": ({"size": [16, 20], "counts": ""}, "do not add up"),
    "early end": ({"size": [16, 20], "counts": "P"}, "ends too early"),
    "wrong characters": ({"size": [16, 20], "counts": "\x7f\x00"}, "characters that none has"),
    "other alphabet": ({"size": [16, 20], "counts": "äöü"}, "characters that none has"),
    "too large": ({"size": [16, 20], "counts": "o" * 30 + "0"}, "larger than the image"),
    "text of negatives": ({"size": [16, 20], "counts": "OO"}, "negative"),
    "long text": ({"size": [16, 20], "counts": "0" * 3000}, "3000 characters, too long"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_an_error(name):
    segmentation, reason = DAMAGED[name]
    with pytest.raises(ValueError, match=reason):
        encode(segmentation, SIZE)


def test_a_truncated_text_never_gives_a_mask():
    """pycocotools gives one of foreign memory."""
    text = coco_mask.encode(np.asfortranarray(np.eye(30, dtype=np.uint8)))["counts"].decode()
    for length in range(len(text)):
        with pytest.raises(ValueError, match="its run lengths|a run length"):
            encode({"size": [30, 30], "counts": text[:length]}, (30, 30))
