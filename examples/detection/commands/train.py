"""``train``: from scratch, from a checkpoint's weights, or on from where an earlier run stopped."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from detection import distributed
from detection.commands import config_file
from detection.commands.datasets import add_data, checked_dataset, open_dataset, place_of
from detection.commands.demo import COINS_TRAINING
from detection.commands.fields import add_options, override
from detection.data.custom import category_ids, class_names, targets_of
from detection.models.options import COINS, ModelOptions
from detection.training import checkpoint
from detection.training.engine import train
from detection.training.options import TrainOptions

# What options.yaml keeps beside the options, so that it is a configuration file for the same data.
DATA = ("images", "annotations", "dataset", "val_images", "val_annotations", "val_dataset", "damaged", "orientation")
KIND_OF = {"masks": "maskrcnn", "keypoints": "keypointrcnn", "boxes": "fasterrcnn"}


def add(commands: Any) -> None:
    parser = commands.add_parser("train", help="train from scratch or from weights, or go on where a checkpoint is")
    parser.add_argument("--config", type=Path, metavar="FILE", help="options in YAML; the command line overrides them")
    parser.add_argument("--output", type=Path, default=Path("runs/train"), metavar="DIR", help="(default: runs/train)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    parser.add_argument("--no-resume", action="store_true", help="start anew even where a checkpoint is")
    parser.add_argument("--no-check", action="store_true", help="do not look at all annotations and images first")
    parser.add_argument("--epochs", type=float, metavar="X", help="passes over the data, instead of --iterations")
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="what to start from: a file, a URL, a torchvision name such as COCO_V1 or IMAGENET1K_V2, or a checkpoint "
        "of this program; predictors of other classes are made anew",
    )
    parser.add_argument(
        "--weights-eps",
        type=float,
        metavar="X",
        help="epsilon of the weights' batch norms; 0 for a detector that torchvision fine-tuned from COCO_V1 "
        "(default: what the format says)",
    )
    add_data(parser)
    validation = parser.add_argument_group("validation")
    validation.add_argument("--val-images", type=Path, metavar="DIR")
    validation.add_argument("--val-annotations", type=Path, metavar="FILE")
    validation.add_argument("--val-dataset", metavar="MODULE:CLASS")
    add_options(parser, "model", ModelOptions)
    add_options(parser, "training", TrainOptions)
    parser.set_defaults(prepare=prepare)


def prepare(arguments: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """Reads and checks everything that the user gave; what it returns trains."""
    values = _values(arguments)
    damaged = values.get("damaged") or "refuse"
    place, val_place = place_of(values), place_of(values, "val")
    is_coins = not any(place)
    training = override(COINS_TRAINING if is_coins else TrainOptions(), values)
    training = replace(training, resume=not arguments.no_resume)
    if (weights_model := _model_of(values.get("weights"))) is not None:
        values.setdefault("kind", weights_model.kind)
    model = override(weights_model or (COINS if is_coins else ModelOptions()), values)
    targets = model.targets if values.get("kind") else None
    limits = {"targets": targets, "max_ratio": model.max_size}
    dataset = open_dataset(place, values, coins_part="train", **limits)
    model = _for_dataset(model, dataset, values.get("kind"))
    validation = None
    if any(val_place) or is_coins:
        limits["targets"] = model.targets
        validation = open_dataset(val_place, values, coins_part="val", **limits)
        _same_classes(dataset, validation)
    if validation is None and training.evaluate_every:
        raise ValueError(
            f"--evaluate-every is {training.evaluate_every}, but there is no validation data; "
            "give --val-images and --val-annotations"
        )
    if any(val_place) and values.get("evaluate_every") is None:
        training = replace(training, evaluate_every=training.save_every)
    if arguments.epochs is not None:
        training = replace(training, iterations=_iterations(arguments.epochs, dataset, training))
    if not arguments.no_check:
        checked_dataset(dataset, damaged, "training data")
        if any(val_place):
            checked_dataset(validation, damaged, "validation data")

    def run() -> None:
        if distributed.rank() == 0:
            print(f"{model.kind}, {model.backbone}; classes: {_list(model.class_names)}", flush=True)
        train(
            dataset,
            model,
            training,
            arguments.output,
            device,
            validation=validation,
            weights=values.get("weights"),
            weights_eps=values.get("weights_eps"),
            notes={name: str(values[name]) for name in DATA if values.get(name) is not None},
        )
        if distributed.rank() == 0:
            print(f"checkpoint: {arguments.output / 'checkpoint.pt'}")

    return run


def _model_of(weights: Any) -> ModelOptions | None:
    """Of a checkpoint of this program that is started from: its model's options, which the user need not repeat."""
    if not isinstance(weights, str) or not Path(weights).is_file():
        return None
    try:
        model = checkpoint.options_of(Path(weights), checkpoint.load(Path(weights), torch.device("cpu")))
    except ValueError:  # another program's file
        return None
    if distributed.rank() == 0:
        print(f"the model is as in {weights} where no option says otherwise")
    return replace(model, trainable_layers=None)


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The configuration file's values under those of the command line."""
    values = config_file.read(arguments.config) if arguments.config else {}
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    if arguments.epochs is not None:
        values.pop("iterations", None)
        if "iterations" in given:
            raise ValueError("--epochs and --iterations exclude each other; give one")
    if ("images" in given or "annotations" in given) and "dataset" not in given:
        values.pop("dataset", None)
    return {**values, **given}


def _for_dataset(model: ModelOptions, dataset: Dataset, kind: str | None) -> ModelOptions:
    """``model`` for the data set's classes, and of the kind that its targets can train where none is asked for."""
    there = targets_of(dataset, ModelOptions(kind=kind).targets if kind else None)
    names = tuple(class_names(dataset))
    model = replace(
        model,
        class_names=names,
        category_ids=tuple(category_ids(dataset, len(names)) or range(1, len(names) + 1)),
        keypoint_names=tuple(dataset.keypoint_names()) if hasattr(dataset, "keypoint_names") else (),
        kind=kind or KIND_OF[there],
    )
    if model.targets not in ("boxes", there):
        fitting = " or ".join(sorted(name for name in KIND_OF.values() if name in (KIND_OF[there], "fasterrcnn")))
        raise ValueError(f"--model {model.kind} needs {model.targets}, and the data set has none; take {fitting}")
    return model


def _same_classes(training: Dataset, validation: Dataset) -> None:
    expected, given = tuple(class_names(training)), tuple(class_names(validation))
    if given != expected:
        raise ValueError(f"the validation data has the classes {_list(given)}; the training data {_list(expected)}")


def _iterations(epochs: float, dataset: Dataset, training: TrainOptions) -> int:
    if not (math.isfinite(epochs) and epochs > 0):
        raise ValueError(f"--epochs is {epochs}; it must be above 0")
    images = training.batch * training.accumulate * distributed.world_size()
    return max(1, math.ceil(epochs * len(dataset) / images))


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
