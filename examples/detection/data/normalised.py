"""Coordinates as fractions of the image's sides, which COCO's format does not have."""

from __future__ import annotations

from typing import Any

from detection.data.boxes import is_box
from detection.data.segmentation import is_finite_number

LARGEST = 2  # pixels a side; in an image of this size boxes in pixels look like fractions


class Normalised:
    """Looks at annotations until one has a box, and one a polygon, that is not within 0 and 1."""

    def __init__(self) -> None:
        # None: none was seen yet; True: all that were seen are within 0 and 1.
        self._all: dict[str, bool | None] = {"boxes": None, "polygons": None}

    def add(self, annotation: dict[str, Any]) -> None:
        if self._all["boxes"] is not False:
            self._see("boxes", _of_box(annotation.get("bbox")))
        if self._all["polygons"] is not False:
            self._see("polygons", _of_polygons(annotation.get("segmentation")))

    def _see(self, kind: str, fractions: bool | None) -> None:
        if fractions is not None:
            self._all[kind] = fractions

    def kinds(self) -> list[str]:
        """Which of "boxes" and "polygons" there are, all of them within 0 and 1."""
        return [kind for kind, fractions in self._all.items() if fractions]


def _of_box(bbox: Any) -> bool | None:
    """Whether it lies within 0 and 1; None where there is no box, as zeros in its place say, too."""
    if not is_box(bbox) or bbox[2] <= 0 or bbox[3] <= 0:
        return None
    return _fractions([*bbox, bbox[0] + bbox[2], bbox[1] + bbox[3]])


def _of_polygons(segmentation: Any) -> bool | None:
    if not isinstance(segmentation, list):
        return None
    values = [value for part in segmentation if isinstance(part, list) for value in part]
    values = [value for value in values if is_finite_number(value)]
    return _fractions(values) if any(values) else None


def _fractions(values: list[float]) -> bool:
    return min(values) >= 0 and max(values) <= 1 + 1e-6  # sums of rounded fractions
