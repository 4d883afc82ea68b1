"""A COCO-format data set for torchvision's detectors: a folder of images and an instances JSON."""

from __future__ import annotations

import warnings
from pathlib import Path

from torch.utils.data import Dataset

from detection.data import coco_json
from detection.data.annotation import Rules
from detection.data.errors import DAMAGED, DamagedSampleError
from detection.data.file_names import check_files, located
from detection.data.images import ORIENTATIONS, Size, Stated, read_header, read_image
from detection.data.normalised import LARGEST
from detection.data.parsed import Parsed, make_target, parse_all
from detection.data.sample import TARGETS, Sample, Transform, check_ratio
from detection.wording import counted

__all__ = ["DAMAGED", "CocoInstances", "DamagedSampleError", "Sample", "Transform"]


class CocoInstances(Dataset):
    """Images with instance masks, boxes or keypoints, in the order of the images' ids.

    A sample is the image (3, H, W), float32 in 0..1, RGB, and its target: ``boxes`` (n, 4) float32 x1 y1 x2 y2 in
    pixels, ``labels`` (n,) int64 from 1 on, ``iscrowd`` (n,) int64, ``area`` (n,) float32 (the annotation's, where it
    is positive; else the mask's or the box's), with "masks" ``masks`` (n, H, W) uint8, with "keypoints" ``keypoints``
    (n, K, 3) float32 x y visibility, and the ints ``image_id``, ``skipped`` (annotations left out as damaged) and
    ``dropped`` (objects left out because nothing of them is in the image). ``ignored_boxes`` (m, 4) float32 and
    ``ignored_labels`` (m,) int64 are those of the left out that have a good ``bbox``, for an evaluation: what is found
    there is no mistake.

    An object of which no keypoint is marked stays, with zeros: its box is learnt, as torchvision's references do, and
    COCO's evaluation of keypoints ignores it because its number of keypoints is 0.

    Args:
        images: the folder that the JSON's file names are relative to, and that they must not leave.
        annotations: the instances JSON (polygons or RLE), see :func:`detection.data.coco_json.read`.
        damaged: "refuse" raises DamagedSampleError for an unreadable image or a wrong annotation; "skip" warns, leaves
            out the annotation, or gives the next readable image in place of the damaged one.
        targets: "masks", "boxes" or "keypoints"; None is masks where any annotation has a segmentation, else boxes.
        max_ratio: greatest allowed ratio of an image's sides (the detector's max_size; beyond it the shorter side would
            be resized to nothing).
        orientation: of images with an EXIF orientation: "auto" applies it unless the JSON's size is that of the pixels
            as they are stored, see :func:`detection.data.images.turned`; "apply" always does, "ignore" never.

    Raises:
        FileNotFoundError, ValueError: naming the path and what is wrong with it.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        damaged: str = "refuse",
        *,
        targets: str | None = None,
        max_ratio: float | None = None,
        orientation: str = "auto",
    ):
        if damaged not in DAMAGED:
            raise ValueError(f"damaged is {damaged!r}; allowed are {', '.join(DAMAGED)}")
        if targets is not None and targets not in TARGETS:
            raise ValueError(f"targets is {targets!r}; allowed are {', '.join(TARGETS)}")
        if orientation not in ORIENTATIONS:
            raise ValueError(f"orientation is {orientation!r}; allowed are {', '.join(ORIENTATIONS)}")
        self.folder, self.annotations, self.damaged = Path(images), Path(annotations), damaged
        self.max_ratio, self.orientation = max_ratio, orientation
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is no folder of images")
        content = coco_json.read(self.annotations)
        check_files(self.annotations, self.folder, content.images, content.image_ids.tolist())
        self.image_ids, self._images, self._annotations = content.image_ids, content.images, content.annotations
        self.categories: dict[int, str] = content.categories
        # Labels are consecutive from 1 on (0 is the background), category ids need not be.
        self.category_ids: list[int] = list(content.categories)
        self._refuse_normalised(content.normalised)
        self.targets: str = targets or ("masks" if content.segmented else "boxes")
        if self.targets == "masks" and not content.segmented:
            raise ValueError(f"{self.annotations}: no annotation has a segmentation; only boxes can be learnt from it")
        self._keypoint_names = self._common_keypoints(content.keypoints) if self.targets == "keypoints" else []
        label_of = {category: label for label, category in enumerate(self.category_ids, 1)}
        self._rules = Rules(label_of, self.targets, len(self._keypoint_names))
        # Of annotations that belong to no image: they cannot be counted with any.
        self.stray: list[str] = content.stray
        if self.stray:
            others = counted(len(self.stray) - 1, "more such annotation")
            more = f" (and {others})" if len(self.stray) > 1 else ""
            self._report(self.stray[0] + more)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {counted(len(self), 'image')}")
        error = None
        for following in range(len(self)):
            try:
                return self.read((index + following) % len(self))
            except DamagedSampleError as damage:
                if self.damaged == "refuse":
                    raise
                error = damage
                warnings.warn(f"skipped: {damage}", stacklevel=2)
        raise DamagedSampleError(
            f"{self.folder}: none of {counted(len(self), 'image')} can be read; of the last: {error}"
        )

    def class_names(self) -> list[str]:
        """Names of the labels 1, 2, ..."""
        return list(self.categories.values())

    def keypoint_names(self) -> list[str]:
        """Names of an object's keypoints; none unless the targets are "keypoints"."""
        return list(self._keypoint_names)

    def file_name(self, index: int) -> str:
        """The image's file name as the JSON has it."""
        return self._images[index][0]

    def path(self, index: int) -> Path:
        return located(self.folder, self.file_name(index))

    def describe(self, index: int) -> str:
        """Names the sample in messages."""
        return str(self.path(index))

    def stated_size(self, index: int) -> Stated | None:
        """The image's (height, width) by the JSON; None where it says neither, one side None where it lacks that."""
        return self._images[index][1]

    def count(self, index: int) -> int:
        """How many annotations the image has, damaged ones as well."""
        return len(self._annotations[index])

    def read(self, index: int) -> Sample:
        """The sample of this image; damaged annotations are left out with a warning where ``damaged`` is "skip".

        Raises:
            DamagedSampleError: naming the file, for an image that cannot be used, in both modes of ``damaged``, and for
                a damaged annotation where it is "refuse".
        """
        path = self.path(index)
        try:
            image = read_image(path, self.stated_size(index), self.orientation)
            size = (image.shape[1], image.shape[2])
            parsed = self.parse(index, size)
            for problem in parsed.problems:
                self._report(problem)
            target = make_target(parsed, size, self._rules)
        except DamagedSampleError:
            raise
        except ValueError as error:
            raise DamagedSampleError(str(error)) from error
        except MemoryError as error:
            message = f"{path}: there is not enough memory for its {self.count(index)} objects"
            raise DamagedSampleError(message) from error
        target.update(image_id=int(self.image_ids[index]), skipped=len(parsed.problems), dropped=parsed.dropped)
        return image, target

    def parse(self, index: int, size: Size) -> Parsed:
        """The image's annotations, given its (height, width), without reading the image.

        Raises:
            DamagedSampleError: where ``size`` is of a greater ratio than ``max_ratio``.
        """
        try:
            check_ratio(size, self.max_ratio)
        except ValueError as error:
            raise DamagedSampleError(f"{self.path(index)}: {error}") from error
        return parse_all(self._annotations[index], size, self._rules, self.path(index), self.annotations)

    def _refuse_normalised(self, kinds: list[str]) -> None:
        """Raises ValueError for coordinates within 0 and 1, unless all annotated images are of but 2 x 2 pixels."""
        annotated = (index for index in range(len(self)) if self.count(index))
        if kinds and any(self._is_large(index) for index in annotated):
            raise ValueError(
                f"{self.annotations}: all {' and '.join(kinds)} lie within 0 and 1: the coordinates are normalised; "
                "they must be in pixels"
            )

    def _is_large(self, index: int) -> bool:
        stated = self.stated_size(index)
        try:
            size = read_header(self.path(index)).stored if stated is None or None in stated else stated
        except ValueError:  # no image, so nothing speaks for a tiny one
            return True
        return max(size) > LARGEST

    def _common_keypoints(self, keypoints: dict[int, tuple[str, ...]]) -> tuple[str, ...]:
        """All categories must have the same: a detector predicts one list of keypoints."""
        if not keypoints:
            raise ValueError(f"{self.annotations}: no category has a list of keypoints' names, 'keypoints'")
        first = next(iter(keypoints.values()))
        for category, name in self.categories.items():
            if keypoints.get(category) != first:
                raise ValueError(f"{self.annotations}: category {category} ({name}) has other keypoints than the rest")
        return first

    def _report(self, message: str) -> None:
        if self.damaged == "refuse":
            raise DamagedSampleError(message)
        warnings.warn(f"skipped: {message}", stacklevel=3)
