"""The data set that a command's arguments name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from detection import distributed
from detection.data import coins
from detection.data.check import check
from detection.data.coco_dataset import DAMAGED, ORIENTATIONS, CocoInstances
from detection.data.custom import check_dataset, make_dataset

COINS_FOLDER = Path("runs/coins/data")


class Place(NamedTuple):
    """Where a data set lies: a folder and a JSON, or a class, or neither (the coins)."""

    images: Path | None
    annotations: Path | None
    dataset: str | None


def add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--images", type=Path, metavar="DIR", help="folder of images (default: the coins)")
    group.add_argument("--annotations", type=Path, metavar="FILE", help="instances JSON in COCO's format")
    group.add_argument(
        "--dataset",
        metavar="MODULE:CLASS",
        help="a data set class of your own, from the current folder or an installed package; called with those of "
        "images, annotations and damaged that it takes",
    )
    group.add_argument(
        "--damaged", choices=DAMAGED, help="what to do about a damaged image or annotation (default: refuse)"
    )
    group.add_argument(
        "--orientation",
        choices=ORIENTATIONS,
        help="the images' EXIF orientation: apply it, ignore it, or auto: as the sizes in the JSON say (default: auto)",
    )


def place_of(values: dict[str, Any], part: str = "") -> Place:
    """The training data, or with ``part`` "val" the validation data."""
    prefix = f"{part}_" if part else ""
    place = Place(*(values.get(prefix + name) for name in Place._fields))
    option = f"--{part}-" if part else "--"
    if place.dataset is None and (place.images is None) != (place.annotations is None):
        raise ValueError(
            f"{option}images and {option}annotations belong together; give both" + ("" if part else ", or neither")
        )
    return place


def open_dataset(
    place: Place,
    values: Mapping[str, Any],
    *,
    coins_part: str,
    damaged: str = "refuse",
    targets: str | None = None,
    max_ratio: float | None = None,
) -> Dataset:
    """The data set at ``place``: of a class, of a JSON, or the coins.

    ``values`` has what the user gave of ``damaged`` and ``orientation``; ``damaged`` is the default.
    """
    asked = values.get("damaged")
    if place.dataset is not None:
        dataset = make_dataset(place.dataset, place.images, place.annotations, asked)
        check_dataset(dataset)
        return dataset
    if place.images is None or place.annotations is None:
        split = _coins()[coins_part]
        place = Place(split.images, split.annotations, None)
    return CocoInstances(
        place.images,
        place.annotations,
        asked or damaged,
        targets=targets,
        max_ratio=max_ratio,
        orientation=values.get("orientation") or "auto",
    )


def checked_dataset(dataset: Dataset, damaged: str, label: str = "data set") -> None:
    """All annotations and the images' headers, before anything runs; on the first rank, for all."""
    if isinstance(dataset, CocoInstances) and distributed.rank() == 0:
        report = check(dataset)
        print(f"{label}: {report}", flush=True)
        report.raise_or_warn(damaged)
    distributed.barrier()


def _coins() -> dict[str, coins.Split]:
    if distributed.rank() == 0:
        coins.make(COINS_FOLDER)
    distributed.barrier()
    return coins.make(COINS_FOLDER)
