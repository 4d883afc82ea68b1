"""The thread that watches for failed ranks never outlives the interpreter, which would abort the process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from training_support import environment

# Asks without a pause, and the interpreter takes a second to end, so that an answer certainly comes meanwhile.
SCRIPT = """
import os, sys, time
import torch.distributed as dist
from detection.training import watch

class EndsSlowly:
    sleep = time.sleep
    def __del__(self):
        EndsSlowly.sleep(1)

sys.ends_slowly = EndsSlowly()
watch.PERIOD = 0.0
store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(store.port))
watching = watch.FailureWatch(rank=0)
"""


@pytest.mark.parametrize("end", ["watching.stop()", "", "raise SystemExit(3)"])
def test_a_process_ends_regularly_while_the_store_is_asked(end):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + end], env=environment(), capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr) == (3 if "3" in end else 0, "")
