"""What the check of a data set found."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from detection.data.errors import DamagedSampleError

SHOWN = 10  # problems that a message lists
DEEP = 8  # images of 16 bits whose pixels are looked at
TWELVE_BITS = 4095


@dataclass
class CheckReport:
    """What :func:`detection.data.check.check` found.

    ``problems`` has a line for each unreadable image and each damaged annotation, after those of ``general``, which are
    of the data set as a whole.
    """

    images: int = 0
    annotations: int = 0
    objects: int = 0  # that are left to learn from: neither crowds nor left out
    crowds: int = 0
    unreadable_images: int = 0
    damaged_annotations: int = 0
    dropped_parts: int = 0  # polygons of fewer than 3 points
    dropped_objects: int = 0  # nothing of them is in the image
    disagreeing_boxes: int = 0  # bbox is not near the mask's, which is used instead
    boxes: int = 0  # annotations with a bbox
    boxes_beyond: int = 0  # of these, those that reach beyond the image by more than 2 pixels
    orientations_applied: int = 0
    orientations_kept: int = 0  # images whose annotations were made with the orientation ignored
    orientations_undecided: int = 0  # applied, but the stated size does not tell whether it was for the annotations
    dark_images: int = 0  # of 16 bits, but no value above 4095
    nothing_left: bool = False  # no object is left to learn from, whatever is skipped
    general: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def conclude(self, targets: str) -> None:
        """Adds what the counts say about the data set as a whole, whose targets are ``targets``."""
        if self.orientations_kept and self.orientations_undecided:
            self.general.append(
                f"of {self.orientations_undecided} images with an EXIF orientation the size does not tell whether it "
                f"was applied when they were annotated, and for {self.orientations_kept} others it was not; give "
                "--orientation apply or ignore"
            )
        if targets != "masks" and 2 * self.boxes_beyond > self.boxes:
            self.general.append(
                f"{self.boxes_beyond} of {self.boxes} boxes reach beyond their image: perhaps x1, y1, x2, y2 was given "
                "instead of x, y, width, height"
            )
        if 1 < self.images == self.unreadable_images:
            self.general.append(
                f"none of the {self.images} images can be used: is --images the folder of their file names?"
            )
        self.nothing_left = not self.objects
        if self.nothing_left:
            reasons = (
                (self.crowds, "crowds"),
                (self.dropped_objects, "without area"),
                (self.damaged_annotations, "damaged"),
                (self.unreadable_images, "images that cannot be used"),
            )
            text = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
            self.general.append(f"no object is left to learn from: {text or 'there is no annotation'}")
        self.problems = self.general + self.problems

    def _useless(self) -> list[str]:
        counts = (
            (self.dropped_parts, "polygons of fewer than three points are left out"),
            (self.dropped_objects, "objects without area in the image are left out"),
            (self.disagreeing_boxes, "boxes are not near their masks; the masks' boxes are used"),
            (
                self.dark_images,
                f"of the first {DEEP} images of 16 bits have no value above {TWELVE_BITS}: pixels of 12 bits come out "
                "dark; scale them to 16",
            ),
            (
                self.orientations_undecided if self._nothing_decides() else 0,
                "images have an EXIF orientation of which their size does not tell whether it was applied when they "
                "were annotated; it is applied (--orientation ignore: it is not)",
            ),
        )
        return [f"{count} {text}" for count, text in counts if count]

    def _nothing_decides(self) -> bool:
        return not self.orientations_kept and self.orientations_applied == self.orientations_undecided

    def __str__(self) -> str:
        lines = [f"{self.images} images, {self.annotations} annotations"]
        lines += [f"{self.unreadable_images} images cannot be used"] if self.unreadable_images else []
        lines += [f"{self.damaged_annotations} annotations are damaged"] if self.damaged_annotations else []
        lines += [f"{self.crowds} annotations are crowds, which are not learnt"] if self.crowds else []
        lines += (
            [f"{self.boxes_beyond} boxes reach beyond the image by more than 2 pixels"] if self.boxes_beyond else []
        )
        lines += self._useless()
        if self.orientations_applied or self.orientations_kept:
            lines.append(
                f"EXIF orientations: {self.orientations_applied} applied, {self.orientations_kept} ignored because the "
                "annotations are for the pixels as stored"
            )
        return "\n".join(lines + self._first_problems()) + ("" if self.problems else "\nnothing is damaged")

    def _first_problems(self) -> list[str]:
        more = len(self.problems) - SHOWN
        return self.problems[:SHOWN] + ([f"... and {more} more"] if more > 0 else [])

    def raise_or_warn(self, damaged: str) -> None:
        """Raises DamagedSampleError where there are problems and ``damaged`` is "refuse", or where no object is left.

        Else one warning counts what will be left out, or there is none where nothing will.
        """
        counts = ""
        if self.unreadable_images or self.damaged_annotations:
            counts = f"{self.unreadable_images} images and {self.damaged_annotations} annotations"
        if self.problems and (damaged == "refuse" or self.nothing_left):
            hint = " (--damaged skip leaves them out)" if damaged == "refuse" else ""
            head = f"{counts} cannot be used{hint}:" if counts else "the data set cannot be used:"
            raise DamagedSampleError("\n".join([head, *self._first_problems()]))
        parts = list(self.general)
        if counts:
            parts.append(f"{counts} are damaged and skipped, first: {self.problems[len(self.general)]}")
        parts += self._useless()
        if parts:
            warnings.warn("; ".join(parts), stacklevel=2)
