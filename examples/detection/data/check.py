"""A check of all annotations and all images' headers before training, instead of an error hours into it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from tqdm import tqdm

from detection.data.coco_dataset import CocoInstances
from detection.data.custom import check_dataset, class_names, describe, read_sample, targets_of
from detection.data.errors import DamagedSampleError
from detection.data.images import Header, Size, is_undecided, read_header, read_image, turned
from detection.data.report import DEEP, TWELVE_BITS, CheckReport
from detection.data.sample import checked

__all__ = ["CheckReport", "check"]


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
        report.crowds += parsed.crowds
        report.objects += len(parsed.instances) - parsed.crowds
        report.boxes += parsed.boxes
        report.boxes_beyond += parsed.beyond
        report.boxes_as_corners += parsed.as_corners
        report.first_beyond = report.first_beyond or parsed.first_beyond
    report.dark_images = sum(_is_dark(path) for path in deep)
    report.conclude(dataset.targets)
    return report


def _progress(count: int, shown: bool) -> Any:
    return tqdm(range(count), desc="check", unit="image", disable=not shown, file=sys.stdout, mininterval=1)


def _size(dataset: CocoInstances, index: int, images: bool, report: CheckReport, deep: list[Path]) -> Size:
    """The (height, width) for which the image's annotations are, counting its orientation."""
    stated = dataset.stated_size(index)
    if stated is not None and None not in stated and not images:
        return stated
    path = dataset.path(index)
    header: Header = read_header(path)
    apply = turned(path, header, stated, dataset.orientation)
    if header.orientation != 1:
        report.orientations_applied += apply
        report.orientations_kept += not apply
        report.orientations_undecided += dataset.orientation == "auto" and is_undecided(header, stated)
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
    keypoints = len(dataset.keypoint_names()) if callable(getattr(dataset, "keypoint_names", None)) else None
    report = CheckReport(images=len(dataset))
    if not len(dataset):
        raise ValueError(f"the data set {type(dataset).__qualname__} is empty")
    for index in _progress(len(dataset) if images else 1, progress):
        try:
            targets = targets or targets_of(dataset)
            sample, name = read_sample(dataset, index), describe(dataset, index)
            _, target = checked(sample, name, classes, targets, keypoints=keypoints or None)
        except DamagedSampleError as error:
            report.unreadable_images += 1
            report.problems.append(str(error))
            continue
        count = len(target["boxes"])
        crowds = int(target["iscrowd"].sum()) if "iscrowd" in target else 0
        report.annotations += count
        report.crowds += crowds
        report.objects += count - crowds
    if images:  # else it is only the first sample
        report.conclude(targets or "boxes")
    return report
