"""``predict``: detections for image files, drawn and in COCO's results format."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detection.prediction.inputs import image_files
from detection.prediction.predict import predict_files
from detection.training import checkpoint


def add(commands: Any) -> None:
    parser = commands.add_parser("predict", help="detect objects in image files, draw them, write COCO's results")
    parser.add_argument("files", nargs="+", metavar="FILE", help="image files, folders of them, or patterns (**/*.jpg)")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/predict"), metavar="DIR", help="(default: runs/predict)"
    )
    parser.add_argument("--threshold", type=float, default=0.5, metavar="X", help="lowest score drawn (default: 0.5)")
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="a JSON in COCO's format, whose image ids the results get",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="the folder that the JSON's file names are within")
    parser.add_argument(
        "--sampling", metavar="LAYER", help="draw where a deformable layer samples, such as body.layer4.2.conv2"
    )
    parser.add_argument("--no-pictures", action="store_true", help="write the results only")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    parser.set_defaults(prepare=prepare)


def prepare(arguments: argparse.Namespace, device: torch.device) -> Callable[[], int]:
    """What it returns gives the exit status: 1 where a file could not be used."""
    if not 0 <= arguments.threshold <= 1:
        raise ValueError(f"--threshold is {arguments.threshold}; it must be 0 to 1")
    if arguments.images is not None and arguments.annotations is None:
        raise ValueError("--images belongs to --annotations; give both, or neither")
    model, options = checkpoint.load_model(arguments.checkpoint, device)
    files = image_files(arguments.files, exclude=arguments.output)

    def run() -> int:
        failed = predict_files(
            model,
            options,
            files,
            arguments.output,
            arguments.threshold,
            device,
            annotations=arguments.annotations,
            images=arguments.images,
            sampling=arguments.sampling,
            draw=not arguments.no_pictures,
        )
        print(f"written: {arguments.output}")
        return 1 if failed else 0

    return run
