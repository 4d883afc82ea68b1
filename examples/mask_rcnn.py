"""Mask R-CNN on a resnet_cuda backbone: train, evaluate, predict.

python examples/mask_rcnn.py                       the demo: coins, from scratch to a picture, in minutes
python examples/mask_rcnn.py check    --images DIR --annotations FILE
python examples/mask_rcnn.py train    --images DIR --annotations FILE --output DIR
torchrun --nproc-per-node 2 examples/mask_rcnn.py train ...
python examples/mask_rcnn.py evaluate --checkpoint FILE --images DIR --annotations FILE
python examples/mask_rcnn.py predict  --checkpoint FILE --output DIR image.jpg ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from detection import distributed
from detection.commands import check, demo, evaluate, predict, train
from detection.training.interrupts import Interrupted

from resnet_cuda._console import escape_what_cannot_be_printed

MISTAKE = 2
INTERRUPTED = 130  # the exit status of a program that Ctrl-C ended


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="of the demo or the training (default: 0)")
    commands = parser.add_subparsers(dest="command", metavar="{train,check,evaluate,predict}")
    for command in (train, check, evaluate, predict):
        command.add(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    escape_what_cannot_be_printed()
    # A data set class of the user's is looked for in the current folder, as with `python -m`.
    if "" not in sys.path:
        sys.path.append("")
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command is None:
            return demo.demo(Path("runs/coins"), chosen.seed or 0)
        device = distributed.start(chosen.device)
        with distributed.failing_together():
            run = chosen.prepare(chosen, device)
            return run() or 0
    except Interrupted as stopped:
        if distributed.rank() == 0:
            print(stopped, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("mask_rcnn.py: interrupted", file=sys.stderr)
        return INTERRUPTED
    except distributed.MISTAKES as error:
        # The user's mistake: the message without a traceback.
        several = distributed.world_size() > 1
        rank = f"rank {distributed.rank()}: " if several else ""
        print(f"mask_rcnn.py: {rank}{error}", file=sys.stderr, flush=True)
        return MISTAKE
    finally:
        distributed.stop()


if __name__ == "__main__":
    raise SystemExit(main())
