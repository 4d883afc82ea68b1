"""What the check of a data set found."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from detection.data.errors import DamagedSampleError
from detection.wording import counted

SHOWN = 10  # problems that a message lists
DEEP = 8  # images of 16 bits whose pixels are looked at
TWELVE_BITS = 4095
DARK = f"no value above {TWELVE_BITS}: pixels of 12 bits come out dark; scale them to 16"
UNDECIDED = (
    "an EXIF orientation of which the size does not tell whether it was applied for the annotations; it is applied "
    "(--orientation ignore: it is not)"
)


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
    boxes_as_corners: int = 0  # those that are within their image if they are read as x1, y1, x2, y2
    first_beyond: str = ""  # which is the first of boxes_beyond
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
                f"of {counted(self.orientations_undecided, 'image')} with an EXIF orientation the size does not tell "
                "whether it was applied for the annotations, and for "
                f"{counted(self.orientations_kept, 'other')} it was not; give --orientation apply or ignore"
            )
        if targets != "masks" and 2 * self.boxes_beyond > self.boxes:
            self.general.append(
                f"{self.boxes_beyond} of {counted(self.boxes, 'box', 'boxes')} "
                f"{'reaches beyond its image' if self.boxes_beyond == 1 else 'reach beyond their image'}: "
                f"{self._corners() or 'are the annotations for images of another size?'}"
            )
        if 1 < self.images == self.unreadable_images:
            self.general.append(
                f"none of the {self.images} images can be used: is --images the folder of their file names?"
            )
        self.nothing_left = not self.objects
        if self.nothing_left:
            reasons = (
                (self.crowds, "crowd", "crowds"),
                (self.dropped_objects, "without area", "without area"),
                (self.damaged_annotations, "damaged", "damaged"),
                (self.unreadable_images, "image that cannot be used", "images that cannot be used"),
            )
            text = ", ".join(counted(*reason) for reason in reasons if reason[0])
            self.general.append(f"no object is left to learn from: {text or 'there is no annotation'}")
        self.problems = self.general + self.problems

    def _corners(self) -> str:
        """The question where most boxes are within their image only in another format; "" elsewhere."""
        if not self.boxes_beyond or 2 * self.boxes_as_corners <= self.boxes:
            return ""
        return (
            "x1 y1 x2 y2 instead of x y width height? "
            f"Read so, {self.boxes_as_corners} of {counted(self.boxes, 'box', 'boxes')} would be within the image"
        )

    def _beyond(self) -> list[str]:
        if not self.boxes_beyond:
            return []
        boxes = counted(self.boxes_beyond, "box reaches", "boxes reach")
        first = f"{', the first' if self.boxes_beyond > 1 else ''}: {self.first_beyond}" if self.first_beyond else ""
        asked = [self._corners()] if self._to_ask() else []
        return [f"{boxes} beyond the image by more than 2 pixels{first}", *asked]

    def _to_ask(self) -> bool:
        """Whether there is a question that no line of ``general`` asks."""
        return bool(self._corners()) and not any(self._corners() in text for text in self.general)

    def _useless(self) -> list[str]:
        counts = (
            (
                self.dropped_parts,
                "polygon of fewer than three points is left out",
                "polygons of fewer than three points are left out",
            ),
            (
                self.dropped_objects,
                "object without area in the image is left out",
                "objects without area in the image are left out",
            ),
            (
                self.disagreeing_boxes,
                "box is not near its mask; the mask's box is used",
                "boxes are not near their masks; the masks' boxes are used",
            ),
            (
                self.dark_images,
                f"of the first {DEEP} images of 16 bits has {DARK}",
                f"of the first {DEEP} images of 16 bits have {DARK}",
            ),
            (
                self.orientations_undecided if self._nothing_decides() else 0,
                f"image has {UNDECIDED}",
                f"images have {UNDECIDED}",
            ),
        )
        return [counted(*entry) for entry in counts if entry[0]]

    def _nothing_decides(self) -> bool:
        return not self.orientations_kept and self.orientations_applied == self.orientations_undecided

    def __str__(self) -> str:
        lines = [f"{counted(self.images, 'image')}, {counted(self.annotations, 'annotation')}"]
        if self.unreadable_images:
            lines.append(f"{counted(self.unreadable_images, 'image')} cannot be used")
        if self.damaged_annotations:
            lines.append(counted(self.damaged_annotations, "annotation is damaged", "annotations are damaged"))
        if self.crowds:
            lines.append(
                counted(self.crowds, "annotation is a crowd, which is", "annotations are crowds, which are")
                + " not learnt"
            )
        lines += self._beyond() + self._useless()
        if self.orientations_applied or self.orientations_kept:
            lines.append(
                f"EXIF orientations: {self.orientations_applied} applied, {self.orientations_kept} ignored because the "
                "annotations are for the pixels as stored"
            )
        if not self.problems and not self._corners():
            lines.append("nothing is damaged")
        return "\n".join(lines + self._first_problems())

    def _first_problems(self) -> list[str]:
        more = len(self.problems) - SHOWN
        return self.problems[:SHOWN] + ([f"... and {more} more"] if more > 0 else [])

    def raise_or_warn(self, damaged: str) -> None:
        """Raises DamagedSampleError where there are problems and ``damaged`` is "refuse", or where no object is left.

        Else one warning counts what will be left out, or there is none where nothing will.
        """
        counts = ""
        if self.unreadable_images or self.damaged_annotations:
            counts = f"{counted(self.unreadable_images, 'image')} and {counted(self.damaged_annotations, 'annotation')}"
        if self.problems and (damaged == "refuse" or self.nothing_left):
            hint = " (--damaged skip leaves them out)" if damaged == "refuse" else ""
            head = f"{counts} cannot be used{hint}:" if counts else "the data set cannot be used:"
            raise DamagedSampleError("\n".join([head, *self._first_problems()]))
        parts = list(self.general)
        if counts:
            parts.append(f"{counts} are damaged and skipped, first: {self.problems[len(self.general)]}")
        if self._to_ask():
            parts += self._beyond()
        parts += self._useless()
        if parts:
            warnings.warn("; ".join(parts), stacklevel=2)
