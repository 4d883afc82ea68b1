"""A training in processes that are killed 20 times, for test_kills.py: ``python killed.py FOLDER`` prints JSON.

The processes are forked from this one, which has imported torch: 20 starts of Python would take minutes. It must run
with OMP_NUM_THREADS=1, and do nothing by itself that starts threads, as a fork takes none along.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from detection.training.engine import train
from training_support import CPU, MODEL, OPTIONS, coco, write_coco

KILLS = 20
LONG = replace(OPTIONS, iterations=240, save_every=2, evaluate_every=30, ema=0.9, log_every=1000)


def start(folder: Path, workers: int) -> int:
    """Forks a process that trains; its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with (folder.parent / f"{folder.name}.txt").open("a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        dataset = coco(folder.parent / "coco")
        train(dataset, MODEL, replace(LONG, workers=workers), folder, CPU, validation=dataset)
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def has_ended(process: int) -> bool:
    return os.waitpid(process, os.WNOHANG)[0] == process


def wait_for_moment(process: int, folder: Path, generator: random.Random) -> bool:
    """Waits for a random moment of the process's run: while it begins, trains or saves. False where it ended before."""
    kind = generator.choices(("begins", "trains", "saves"), (2, 9, 9))[0]
    records, saves = generator.randint(1, 16), generator.randint(1, 6)
    unfinished = folder / ".checkpoint.pt.unfinished"
    unfinished.unlink(missing_ok=True)  # of the process before, so that this one's is seen
    lines, was_saving, deadline = None, False, time.monotonic() + 60
    while kind != "begins" and records > 0 and saves > 0 and time.monotonic() < deadline:
        if has_ended(process):
            return False
        if kind == "trains":
            now = line_count(folder / "log.jsonl")
            records -= lines is not None and now > lines  # fewer where it has cut the log off
            lines = now
        else:
            saving = unfinished.exists()
            saves -= saving and not was_saving
            was_saving = saving
        time.sleep(0.0005)
    time.sleep(generator.uniform(0, {"begins": 0.5, "trains": 0.03, "saves": 0.008}[kind]))
    return not has_ended(process)


def line_count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main(folder: Path) -> None:
    write_coco(folder / "coco")
    whole = start(folder / "whole", workers=0)
    killed, kills, while_saving = folder / "killed", 0, 0
    generator = random.Random(17)
    while kills < KILLS:
        process = start(killed, workers=generator.choice((0, 0, 0, 1)))
        if not wait_for_moment(process, killed, generator):
            break
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        kills += 1
        while_saving += (killed / ".checkpoint.pt.unfinished").exists()
    else:
        last = start(killed, workers=0)
        status = os.waitstatus_to_exitcode(os.waitpid(last, 0)[1])
        whole_status = os.waitstatus_to_exitcode(os.waitpid(whole, 0)[1])
        print(json.dumps({"kills": kills, "while_saving": while_saving, "statuses": [status, whole_status]}))
        return
    print(json.dumps({"kills": kills, "ended": (folder / "killed.txt").read_text()[-2000:]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
