"""A check of all annotations and all images' headers before training, instead of an error hours into it."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from tqdm import tqdm

from detection.data.coco_dataset import CocoInstances
from detection.data.custom import check_dataset, class_names, targets_of
from detection.data.errors import DamagedSampleError
from detection.data.images import Header, Size, read_header, read_image, turned
from detection.data.sample import checked

SHOWN = 10  # problems that a message lists
DEEP = 8  # images of 16 bits whose pixels are looked at
TWELVE_BITS = 4095


@dataclass
class CheckReport:
    """What :func:`check` found. ``problems`` has a line for each unreadable image and each damaged annotation."""

    images: int = 0
    annotations: int = 0
    unreadable_images: int = 0
    damaged_annotations: int = 0
    dropped_parts: int = 0  # polygons of fewer than 3 points
    dropped_objects: int = 0  # nothing of them is in the image
    disagreeing_boxes: int = 0  # bbox is not near the mask's, which is used instead
    orientations_applied: int = 0
    orientations_kept: int = 0  # images whose annotations were made with the orientation ignored
    dark_images: int = 0  # of 16 bits, but no value above 4095
    problems: list[str] = field(default_factory=list)

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
        )
        return [f"{count} {text}" for count, text in counts if count]

    def __str__(self) -> str:
        lines = [f"{self.images} images, {self.annotations} annotations"]
        lines += [f"{self.unreadable_images} images cannot be used"] if self.unreadable_images else []
        lines += [f"{self.damaged_annotations} annotations are damaged"] if self.damaged_annotations else []
        lines += self._useless()
        if self.orientations_applied or self.orientations_kept:
            lines.append(
                f"EXIF orientations: {self.orientations_applied} applied, {self.orientations_kept} ignored because the "
                "annotations' size is that of the pixels as stored"
            )
        return "\n".join(lines + self._first_problems()) + ("" if self.problems else "\nnothing is damaged")

    def _first_problems(self) -> list[str]:
        more = len(self.problems) - SHOWN
        return self.problems[:SHOWN] + ([f"... and {more} more"] if more > 0 else [])

    def raise_or_warn(self, damaged: str) -> None:
        """Raises DamagedSampleError where something is damaged and ``damaged`` is "refuse"; else one warning counts
        what will be left out, or gives no warning where nothing will."""
        counts = f"{self.unreadable_images} images and {self.damaged_annotations} annotations"
        if self.problems and damaged == "refuse":
            raise DamagedSampleError(
                "\n".join([f"{counts} cannot be used (--damaged skip leaves them out):", *self._first_problems()])
            )
        parts = [f"{counts} are damaged and skipped, first: {self.problems[0]}"] if self.problems else []
        parts += self._useless()
        if parts:
            warnings.warn("; ".join(parts), stacklevel=2)


def check(dataset: Dataset, *, images: bool = True, progress: bool = True) -> CheckReport:
    """Checks every annotation, and every image's header: size, orientation, format. Pixels are not decoded.

    Of a data set that is no CocoInstances each sample is read instead, or with ``images=False`` only the first.

    Args:
        dataset: what is checked.
        images: whether image files are opened; without it sizes are the JSON's, where it has them.
        progress: shows a progress bar.
    """
    if not isinstance(dataset, CocoInstances):
        return _check_samples(dataset, images, progress)
    report = CheckReport(images=len(dataset))
    report.problems += dataset.stray
    report.annotations = report.damaged_annotations = len(dataset.stray)
    deep: list[Path] = []
    for index in _progress(len(dataset), progress):
        try:
            size = _size(dataset, index, images, report, deep)
            parsed = dataset.parse(index, size)
        except ValueError as error:
            report.unreadable_images += 1
            report.problems.append(str(error))
            report.annotations += dataset.count(index)
            continue
        report.annotations += parsed.annotations
        report.damaged_annotations += len(parsed.problems)
        report.problems += parsed.problems
        report.dropped_parts += parsed.dropped_parts
        report.dropped_objects += parsed.dropped
        report.disagreeing_boxes += parsed.disagreeing
    report.dark_images = sum(_is_dark(path) for path in deep)
    return report


def _progress(count: int, shown: bool) -> Any:
    return tqdm(range(count), desc="check", unit="image", disable=not shown, file=sys.stdout, mininterval=1)


def _size(dataset: CocoInstances, index: int, images: bool, report: CheckReport, deep: list[Path]) -> Size:
    """The (height, width) for which the image's annotations are, counting its orientation."""
    stated = dataset.stated_size(index)
    if stated is not None and not images:
        return stated
    path = dataset.path(index)
    header: Header = read_header(path)
    apply = turned(path, header, stated)
    if header.orientation != 1:
        report.orientations_applied += apply
        report.orientations_kept += not apply
    header.check_pixels(path)
    if header.bits == 16 and len(deep) < DEEP:
        deep.append(path)
    return header.upright if apply else header.stored


def _is_dark(path: Path) -> bool:
    try:
        pixels = read_image(path)
    except ValueError:  # not the header's fault; reading the sample will say so
        return False
    return 0 < float(pixels.max()) * 65535 <= TWELVE_BITS + 0.5


def _check_samples(dataset: Dataset, images: bool, progress: bool) -> CheckReport:
    check_dataset(dataset)
    classes, targets = len(class_names(dataset)), None
    report = CheckReport(images=len(dataset))
    if not len(dataset):
        raise ValueError(f"the data set {type(dataset).__qualname__} is empty")
    for index in _progress(len(dataset) if images else 1, progress):
        name = dataset.describe(index) if hasattr(dataset, "describe") else f"sample {index}"
        try:
            targets = targets or targets_of(dataset)
            sample = dataset.read(index) if hasattr(dataset, "read") else dataset[index]
            _, target = checked(sample, name, classes, targets)
        except DamagedSampleError as error:
            report.unreadable_images += 1
            report.problems.append(str(error))
            continue
        report.annotations += len(target["boxes"])
    return report
