"""Measures memory in a process of its own, for test_memory.py: prints bytes.

python memory.py sample FOLDER     the largest of a process while it reads the only image, less before, and its masks
python memory.py worker FOLDER     what a forked process gets of its own in a pass over all annotations
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))

import torch
from detection.data.coco_dataset import CocoInstances


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def private() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def sample(dataset: CocoInstances) -> None:
    before = status("VmRSS")
    target = dataset[0][1]
    # Not getrusage's ru_maxrss, which begins at the size of the process that started this one.
    print(status("VmHWM") - before, target["masks"].nbytes)


def worker(dataset: CocoInstances) -> None:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        before = private()
        count = sum(len(dataset.parse(index, (480, 640)).instances) for index in range(len(dataset)))
        print(private() - before, count, flush=True)
        os._exit(0)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    {"sample": sample, "worker": worker}[sys.argv[1]](CocoInstances(folder / "images", folder / "instances.json"))
