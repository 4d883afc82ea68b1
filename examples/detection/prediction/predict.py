"""Detections for image files: one picture each, and all of them as COCO results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.models.detection import MaskRCNN

from detection.data.images import read_image
from detection.evaluation.evaluate import results_of
from detection.prediction.pictures import confident, draw_detections


@torch.no_grad()
def predict_files(
    model: MaskRCNN,
    class_names: tuple[str, ...],
    files: Sequence[Path],
    output: Path,
    threshold: float,
    device: torch.device,
) -> None:
    """Writes ``output``/NAME.png for every file and ``output``/results.json; categories are numbered from 1."""
    model.eval()
    results = []
    for number, path in enumerate(files, 1):
        image = read_image(path)
        prediction = confident(model([image.to(device)])[0], threshold)
        draw_detections(output / f"{path.stem}.png", image, prediction, class_names)
        found = results_of(number, prediction, list(range(1, len(class_names) + 1)))
        results += [{"file_name": str(path), **result} for result in found]
        print(f"{path}: {len(found)} objects")
    (output / "results.json").write_text(json.dumps(results) + "\n")
