"""``evaluate``: COCO's metrics of a checkpoint, and on request what explains them."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detection import distributed
from detection.commands.datasets import add_data, open_dataset, place_of
from detection.data.custom import class_names
from detection.evaluation.confusion import confusion_matrix, draw_confusion
from detection.evaluation.evaluate import evaluate
from detection.evaluation.pictures import draw_worst
from detection.training import checkpoint


def add(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="COCO's box and mask AP of a checkpoint, as a table and as JSON")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    add_data(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="(default: evaluation, beside the checkpoint)")
    parser.add_argument("--results", action="store_true", help="write the detections in COCO's results format, too")
    parser.add_argument("--confusion", action="store_true", help="draw the confusion matrix")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="draw the N images with the lowest F1")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load data (default: 2)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    parser.set_defaults(prepare=prepare)


def prepare(arguments: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    for name, lowest in (("worst", 0), ("workers", 0)):
        if getattr(arguments, name) < lowest:
            raise ValueError(f"--{name} is {getattr(arguments, name)}; it must be at least {lowest}")
    model, options = checkpoint.load_model(arguments.checkpoint, device)
    values = vars(arguments)
    limits = {"targets": options.targets, "max_ratio": options.max_size}
    dataset = open_dataset(place_of(values), values, coins_part="val", **limits)
    names = tuple(class_names(dataset))
    if names != options.class_names:
        known = ", ".join(options.class_names)
        raise ValueError(f"{arguments.checkpoint} knows the classes {known}; the data set has {', '.join(names)}")
    output = arguments.output or arguments.checkpoint.parent / "evaluation"
    _check_writable(output)

    def run() -> None:
        keep = arguments.confusion or arguments.worst > 0 or arguments.results
        report = evaluate(model, dataset, device, options=options, workers=arguments.workers, keep_results=keep)
        if distributed.rank() != 0:
            return
        print(report.table())
        (output / "metrics.json").write_text(json.dumps(report.as_dict(), indent=1) + "\n", encoding="utf-8")
        by = "segm" if report.primary == "segm" else "bbox"
        if arguments.confusion:
            matrix = confusion_matrix(report.records, len(names), by=by)
            draw_confusion(output / "confusion.png", matrix, names, by=by)
        if arguments.worst:
            draw_worst(output / "worst", dataset, report.records, names, count=arguments.worst, by=by)
        if arguments.results:
            for kind in report.metrics:
                (output / f"results_{kind}.json").write_text(
                    json.dumps(report.results_of(kind)) + "\n", encoding="utf-8"
                )
        print(f"written: {output}")

    return run


def _check_writable(folder: Path) -> None:
    """Before an evaluation that may take hours, not after it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
