"""``check``: whether a data set can be trained on, without training."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from detection.commands.datasets import add_data, open_dataset, place_of
from detection.data.check import check
from detection.data.coco_dataset import CocoInstances
from detection.data.sample import checked
from detection.models.options import ModelOptions

SHOWN = 20  # problems of pixels that are printed


def add(commands: Any) -> None:
    parser = commands.add_parser("check", help="look at all annotations and images of a data set")
    add_data(parser)
    parser.add_argument(
        "--model", dest="kind", metavar="NAME", help="what it is for: maskrcnn, fasterrcnn, keypointrcnn or retinanet"
    )
    parser.add_argument("--max-size", type=int, metavar="N", help="the model's max_size, for images of extreme ratio")
    parser.add_argument("--pixels", action="store_true", help="read every image whole, not only its header")
    parser.add_argument("--device", default="cpu", choices=("cpu",), help=argparse.SUPPRESS)
    parser.set_defaults(prepare=prepare)


def prepare(arguments: argparse.Namespace, device: torch.device) -> Callable[[], int]:
    """What it returns gives the exit status: 1 where something cannot be used."""
    model = ModelOptions(class_names=("object",))
    max_size = arguments.max_size or model.max_size
    kind = arguments.kind
    targets = ModelOptions(class_names=("object",), kind=kind).targets if kind else None
    values = vars(arguments)
    # "skip": a problem is reported, whatever training would do about it.
    dataset = open_dataset(
        place_of(values), values, coins_part="train", damaged="skip", targets=targets, max_ratio=max_size
    )
    if arguments.pixels and not isinstance(dataset, CocoInstances):
        raise ValueError("--pixels is for --images and --annotations; of a --dataset class every sample is read anyway")

    def run() -> int:
        report = check(dataset)
        print(report)
        problems = list(report.problems)
        if arguments.pixels:
            found = [text for text in _samples(dataset, max_size) if text not in problems]
            print("\n".join(found[:SHOWN]) if found else "pixels: nothing is damaged")
            if len(found) > SHOWN:
                print(f"... and {len(found) - SHOWN} more")
            problems += found
        return 1 if problems else 0

    return run


def _samples(dataset: CocoInstances, max_ratio: float) -> list[str]:
    """What is wrong with the samples, each one read."""
    problems = []
    classes = len(dataset.class_names())
    for index in tqdm(range(len(dataset)), desc="pixels", unit="image", file=sys.stdout, mininterval=1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is left out is in the report
                sample = dataset.read(index)
            checked(sample, dataset.describe(index), classes, dataset.targets, max_ratio)
        except (ValueError, TypeError) as error:
            problems.append(str(error))
    return problems
