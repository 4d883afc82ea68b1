"""What two ranks do in test_parallel.py: ``torchrun ranks.py SCENARIO... FOLDER``; rank 0 writes SCENARIO.json."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from detection import distributed
from detection.data.coco_dataset import CocoInstances
from detection.training.engine import train
from detection.training.interrupts import Interrupted
from training_support import CPU, MODEL, OPTIONS, coco

# Each rank with one image; sgd, whose steps are as close as its gradients are.
SGD = replace(OPTIONS, batch=1, optimizer="sgd", learning_rate=0.002)
ADAMW = replace(OPTIONS, batch=1, ema=0.9, clip_norm=1.0)


def ddp(folder: Path) -> dict:
    return _digest(train(coco(folder / "coco"), MODEL, SGD, folder / "ddp", CPU))


def ddp_accumulates(folder: Path) -> dict:
    options = replace(SGD, accumulate=2, iterations=3)
    return _digest(train(coco(folder / "coco"), MODEL, options, folder / "ddp_accumulates", CPU))


def fsdp(folder: Path) -> dict:
    """Evaluates, too."""
    data, options = coco(folder / "coco"), replace(SGD, parallel="fsdp", evaluate_every=3)
    return _digest(train(data, MODEL, options, folder / "fsdp", CPU, validation=data))


def fsdp_average(folder: Path) -> dict:
    options = replace(ADAMW, parallel="fsdp")
    train(coco(folder / "coco"), MODEL, replace(options, stop_after=3), folder / "fsdp_half", CPU)
    return _digest(train(coco(folder / "coco"), MODEL, options, folder / "fsdp_average", CPU))


def fsdp_resumes(folder: Path) -> dict:
    """What one process began."""
    return _digest(train(coco(folder / "coco"), MODEL, replace(ADAMW, parallel="fsdp"), folder / "one_half", CPU))


def fsdp_float16(folder: Path) -> dict:
    options = replace(SGD, parallel="fsdp", precision="float16", iterations=3, accumulate=2)
    return _digest(train(coco(folder / "coco"), MODEL, options, folder / "fsdp_float16", CPU))


def ddp_retinanet(folder: Path) -> dict:
    model = replace(MODEL, kind="retinanet")
    return _digest(train(coco(folder / "coco"), model, replace(SGD, iterations=2), folder / "ddp_retinanet", CPU))


def fsdp_retinanet(folder: Path) -> dict:
    model, options = replace(MODEL, kind="retinanet"), replace(SGD, iterations=2, parallel="fsdp")
    return _digest(train(coco(folder / "coco"), model, options, folder / "fsdp_retinanet", CPU))


class SignalsRank1(CocoInstances):
    """SIGTERM to rank 1 alone, at its third image."""

    count = 0

    def read(self, index: int):
        self.count += 1
        if self.count == 3 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().read(index)


def signal_to_one(folder: Path) -> dict:
    try:
        # Without norms that are calibrated, which reads images on rank 0.
        train(coco(folder / "coco", SignalsRank1), replace(MODEL, norm="gn"), SGD, folder / "signal", CPU)
    except Interrupted as error:
        return {"messages": distributed.all_gather(str(error))}
    return {}


class FailsOnRank1(CocoInstances):
    def read(self, index: int):
        if distributed.rank() == 1:
            raise ValueError("this image is bad")
        return super().read(index)


def failure(folder: Path) -> dict:
    train(coco(folder / "coco", FailsOnRank1), replace(MODEL, norm="gn"), SGD, folder / "failure", CPU)
    return {}


def _digest(model: torch.nn.Module) -> dict:
    """Every rank's sums of the model's tensors, which must be the same."""
    tensors = {name: float(value.double().sum()) for name, value in model.state_dict().items()}
    return {"sums": distributed.all_gather(tensors)}


def main(*arguments: str) -> int:
    *scenarios, folder = arguments
    torch.set_num_threads(1)
    distributed.start("cpu")
    try:
        for scenario in scenarios:
            result = globals()[scenario](Path(folder))
            if distributed.rank() == 0:
                (Path(folder) / f"{scenario}.json").write_text(json.dumps(result))
    except ValueError as error:  # as mask_rcnn.py does
        print(f"rank {distributed.rank()}: {error}", file=sys.stderr, flush=True)
        return 2
    finally:
        distributed.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
