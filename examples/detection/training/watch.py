"""Ends this process where another one of the same run has failed.

A rank that waits in a collective for one that is gone hears of it late (gloo) or after minutes (NCCL), and cannot act
on torchrun's signal before. A thread that asks the run's key-value store can.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist

PERIOD = 0.5  # seconds between questions
GRACE = 3.0  # seconds for the failed rank to say why, and to end first: torchrun names the first as the cause


class FailureWatch:
    """A thread that ends the process by ``os._exit(1)`` once another rank has failed."""

    def __init__(self, rank: int):
        self._rank = str(rank)
        self._key = f"detection/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        # A connection of its own: the process group's is taken while a collective waits for its peers.
        self._store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=10)
        )
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.failed = False  # whether it is this rank that failed
        # A daemon, as others would keep the process alive until stop() is called. But Python ends a daemon that returns
        # from C++ to an interpreter that is ending, which aborts the process: so it is stopped first.
        self._thread = threading.Thread(target=self._look, name="failure watch", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def first_to_fail(self) -> bool:
        """Says that this rank failed. False where another one did before, of which this failure is a consequence."""
        with self._lock:
            try:
                first = self._store.compare_set(self._key, "", self._rank).decode() == self._rank
            except RuntimeError:  # the store's process is gone, and nobody is left to be told
                first = True
            self.failed = first
        return first

    def end(self) -> NoReturn:
        time.sleep(GRACE)
        os._exit(1)

    def stop(self) -> None:
        """Ends the thread, and returns when it has ended: 10 s later where the store does not answer."""
        self._stopped.set()
        self._thread.join()
        atexit.unregister(self.stop)

    def _look(self) -> None:
        # The store's process may end before this one, at the run's regular end, too.
        with contextlib.suppress(RuntimeError):
            while not self._stopped.wait(PERIOD):
                with self._lock:
                    failed = self._store.check([self._key])
                if failed and not self.failed and not self._stopped.is_set():
                    self.end()
