"""A training with workers, for test_interrupts.py to interrupt: ``python ctrl_c.py FOLDER``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from detection.training.engine import train
from detection.training.interrupts import Interrupted
from training_support import CPU, MODEL, OPTIONS, coco

if __name__ == "__main__":
    data, folder = coco(Path(sys.argv[1]) / "coco"), Path(sys.argv[1]) / "run"
    try:
        train(data, MODEL, replace(OPTIONS, iterations=100_000, workers=2, log_every=1000), folder, CPU)
    except Interrupted as stopped:  # as mask_rcnn.py does
        print(stopped, flush=True)
        raise SystemExit(130) from None
