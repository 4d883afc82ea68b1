"""COCO's segmentations, polygons and run lengths (RLE), checked before pycocotools' C code, which trusts them.

A checked segmentation is what pycocotools takes and gives: ``{"size": [H, W], "counts": bytes}``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Size = tuple[int, int]  # height, width
Rle = dict[str, Any]
# A polygon's outline is at most as long as there are pixels, but not longer than this: pycocotools needs about 120
# bytes for each pixel of it.
LONGEST_OUTLINE = 4_000_000
LONGEST_COUNT = 7  # characters of 5 bits each: more than any image's number of pixels


def encode(segmentation: Any, size: Size) -> tuple[Rle, int]:
    """Polygons or RLE (counts as text or as a list) of an image of ``size`` (H, W), checked.

    Returns:
        The segmentation as RLE, and how many parts (polygons of fewer than 3 points) were dropped. It may be empty.

    Raises:
        ValueError: for what is neither, numbers that are none or not finite, polygons far outside the image, run
            lengths that do not add up to the image's size.
    """
    if isinstance(segmentation, dict):
        return _from_runs(_run_lengths(segmentation, size), size), 0
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("its segmentation is neither polygons nor RLE")
    parts = [check_polygon(part, size) for part in segmentation]
    useful = [part for part in parts if len(part) >= 6]
    dropped = len(parts) - len(useful)
    if not useful:
        return _from_runs(np.array([size[0] * size[1]]), size), dropped
    return coco_mask.merge(coco_mask.frPyObjects(useful, *size)), dropped


def is_empty(segmentation: Any) -> bool:
    """Whether there is none: nothing at all, or polygons of which none has a number."""
    return not segmentation or (isinstance(segmentation, list) and all(part == [] for part in segmentation))


def has_parts(segmentation: Any) -> bool:
    """Whether it is an RLE, or has a polygon of at least 3 points. What the numbers are is not looked at."""
    if isinstance(segmentation, dict):
        return "counts" in segmentation
    return isinstance(segmentation, list) and any(
        isinstance(part, list) and len(part) >= 6 and isinstance(part[0], (int, float)) for part in segmentation
    )


def extents(segmentation: Any) -> tuple[float, float, float, float] | None:
    """Edges x1, y1, x2, y2 of the points of checked polygons; None of an RLE, or where there is no point.

    A mask has only the pixels whose centres lie within: at a thin tip they end earlier than the polygon.
    """
    if not isinstance(segmentation, list):
        return None
    xs = [x for part in segmentation for x in part[0::2]]
    ys = [y for part in segmentation for y in part[1::2]]
    return (min(xs), min(ys), max(xs), max(ys)) if xs else None


def check_polygon(part: Any, size: Size) -> list[float]:
    """The polygon, x and y in turn, if it is one; else ValueError. Fewer than 3 points are no error here."""
    if not isinstance(part, list) or not set(map(type, part)) <= {int, float}:
        raise ValueError("a polygon is no list of numbers, x and y in turn")
    if len(part) % 2:
        raise ValueError(f"a polygon has {len(part)} numbers; they must be pairs of x and y")
    if not part:
        return part
    height, width = size
    for values, side, axis in ((part[0::2], width, "x"), (part[1::2], height, "y")):
        low, high = min(values), max(values)
        if not (-side <= low and high <= 2 * side) or math.isnan(sum(values)):  # NaN hides from min and max
            far = next(value for value in values if not -side <= value <= 2 * side)
            raise ValueError(f"a polygon has {axis} = {shortened(far)}; the image's side is {side} pixels long")
    longest = min(height * width, LONGEST_OUTLINE) + 16 * (height + width)
    # Cheap: an outline of n points is at most 3 max(H, W) n long; measured only where this does not settle it.
    if len(part) * 1.5 * max(height, width) > longest:
        points = np.array(part, dtype=np.float64).reshape(-1, 2)
        outline = float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
        if outline > longest:
            raise ValueError(f"a polygon's outline is {outline:.0f} pixels long; at most {longest} are possible")
    return part


def _run_lengths(segmentation: dict[str, Any], size: Size) -> np.ndarray:
    """The checked run lengths (n,) int64 of an RLE: zeros and ones in turn, down the columns."""
    stated = segmentation.get("size")
    if not isinstance(stated, (list, tuple)) or len(stated) != 2 or not set(map(type, stated)) <= {int}:
        raise ValueError("its RLE has no size of two whole numbers, height and width")
    if tuple(stated) != tuple(size):
        raise ValueError(f"its mask is of size {shortened(tuple(stated))}, the image of {tuple(size)} (height, width)")
    counts = segmentation.get("counts")
    pixels = size[0] * size[1]
    if isinstance(counts, (str, bytes)):
        if len(counts) > LONGEST_COUNT * (pixels + 2):
            raise ValueError(f"its run lengths are a text of {len(counts)} characters, too long for the image's size")
        runs = parse_counts(counts)
    elif isinstance(counts, list):
        if not set(map(type, counts)) <= {int}:
            raise ValueError("its run lengths are not all whole numbers")
        if counts and max(counts) > pixels:
            raise ValueError("its run lengths do not add up to the image's size")
        runs = np.array([max(count, -1) for count in counts], dtype=np.int64)
    else:
        raise ValueError("its RLE has no counts, a text or a list of whole numbers")
    if (runs < 0).any():
        raise ValueError("a run length is negative")
    if len(runs) > pixels + 2:
        raise ValueError(f"it has {len(runs)} run lengths, too many for the image's size")
    if (runs > pixels).any() or int(runs.sum()) != pixels:
        raise ValueError("its run lengths do not add up to the image's size")
    return runs


def parse_counts(text: str | bytes) -> np.ndarray:
    """Run lengths (n,) int64 of COCO's compressed text.

    Characters 48 to 111 hold 5 bits each, the lowest first; the sixth bit says that the number goes on, the fifth of
    the last one is the sign. From the fourth number on, each is the difference to the one two before.

    Raises:
        ValueError: for other characters, a text that ends within a number, or a number that is too long.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise ValueError("its run lengths are a text with characters that none has") from None
    if not raw:
        return np.zeros(0, dtype=np.int64)
    values = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if int(values.min()) < 0 or int(values.max()) > 63:
        raise ValueError("its run lengths are a text with characters that none has")
    ends = np.flatnonzero(values < 32)
    if not len(ends) or ends[-1] != len(values) - 1:
        raise ValueError("its run lengths are a text that ends too early")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if int(lengths.max()) > LONGEST_COUNT:
        raise ValueError("a run length is larger than the image")
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((values & 31) << (5 * place), starts)
    numbers -= np.where(values[ends] & 16, np.int64(1) << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _from_runs(runs: np.ndarray, size: Size) -> Rle:
    """Checked run lengths as pycocotools' RLE. Those of 0, of which its boxes would be wrong, are joined."""
    if (runs[1:] == 0).any():
        ends = np.cumsum(runs)
        ones = np.arange(len(runs)) % 2
        kept = runs > 0
        ends, ones = ends[kept], ones[kept]
        last = np.append(ones[1:] != ones[:-1], True)  # of neighbours of one kind the last end counts
        ends, first = ends[last], ones[last][0]
        runs = np.diff(np.concatenate(([0, 0] if first else [0], ends)))
    return coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)


def box_of(rle: Rle) -> tuple[float, float, float, float]:
    """Edges x1, y1, x2, y2 of a checked segmentation's pixels; of a single pixel they are 1 apart. Empty: zeros."""
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return x, y, x + width, y + height


def decode(rle: Rle, out: np.ndarray | None = None) -> np.ndarray:
    """The mask (H, W) uint8 of a checked segmentation.

    Args:
        rle: from :func:`encode`.
        out: an array of that shape and type, all zeros, which is filled. Only the pixels within the mask's box are
            written, which is quick for small objects in large images.
    """
    height, width = rle["size"]
    out = np.zeros((height, width), dtype=np.uint8) if out is None else out
    x1, y1, x2, y2 = (int(edge) for edge in box_of(rle))
    if x1 == x2:
        return out
    # Cut the runs to the columns of the box.
    ends = np.clip(np.cumsum(parse_counts(rle["counts"])), x1 * height, x2 * height) - x1 * height
    runs = np.diff(ends, prepend=0)
    columns = np.repeat((np.arange(len(runs)) % 2).astype(np.uint8), runs).reshape(x2 - x1, height)
    out[y1:y2, x1:x2] = columns[:, y1:y2].T
    return out


def shortened(value: Any) -> str:
    """The value for a message: numbers of very many digits and long texts are cut."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_finite_number(value: Any) -> bool:
    """Whether it is an int or a float of ordinary size; not a bool, a text, None, NaN or infinity."""
    return type(value) in (int, float) and -1e18 < value < 1e18
