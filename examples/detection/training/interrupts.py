"""Ctrl-C and SIGTERM: the iteration is finished and saved, then the run ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# torchrun passes Ctrl-C on to processes that may have had it from the terminal; that is one wish, not two.
SAME_WISH = 0.5  # seconds


class Interrupted(KeyboardInterrupt):
    """The user ended the run; all is saved. The message is what to print.

    No Exception, as it may be raised in code of the user's, which may catch those.
    """


class Interrupts:
    """While it is entered, the first signal sets ``requested``, and a second one does what it did before.

    Signals reach a process's main thread alone; entered in another one it does nothing.
    """

    def __init__(self, announce: bool = True) -> None:
        self.requested = False
        self._announce = announce
        self._raising = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @contextmanager
    def raising(self, enabled: bool) -> Iterator[None]:
        """Within, the first signal raises :class:`Interrupted`: for what takes long and can be done again."""
        self._raising = enabled
        try:
            yield
        finally:
            self._raising = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return _in_a_worker(number)
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
            if self._announce:
                # Not print, which a handler must not call: it may have come in the middle of another print.
                os.write(2, b"\nsaving after this iteration; once more ends at once\n")
            if self._raising:
                raise Interrupted
        elif now - self._since > SAME_WISH:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}


def _in_a_worker(number: int) -> None:
    """A forked process has its parent's handler; Ctrl-C of a terminal reaches both, and is the parent's matter."""
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def outlive_signals(worker: int) -> None:
    """``worker_init_fn`` of a loader whose workers must serve their parent's last iteration.

    A terminal's Ctrl-C, torchrun's SIGTERM and a cluster's reach them, too, and a worker that ends is an error in the
    parent. Only the parent's own SIGTERM, at its exit, counts.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
