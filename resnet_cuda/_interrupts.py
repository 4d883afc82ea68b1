"""Signals that end a program: what is unfinished is removed first, and then the process ends by the same signal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

# What each of them does where nobody has chosen otherwise. Windows has no SIGHUP.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if hasattr(signal, "SIGHUP"):
    _DEFAULTS[signal.SIGHUP] = signal.SIG_DFL

# Seconds within which further signals are one with the first: `timeout` sends its own twice, systemd SIGHUP after
# SIGTERM. They would interrupt the removal of what is unfinished.
_SAME_WISH = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal that ends the program; no Exception, which code that goes on after failures would catch."""

    def __init__(self, number: int, remark: str = "") -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}{remark}")
        self.number = number


@contextlib.contextmanager
def interruptible(path: str) -> Iterator[None]:
    """Within the block, which writes ``path`` whole or not at all, SIGTERM and SIGHUP raise as Ctrl-C does.

    Only in the main thread, the only one that may handle signals, and only signals that nobody ignores (as ``nohup``
    does) or handles. Their handlers are as before after the block.

    Raises:
        Interrupted: for SIGTERM, SIGHUP and Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    remark = f"; {path} is whole, or as it was before"
    received: list[int] = []
    since, over = float("-inf"), False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal since
        received.append(number)
        now = time.monotonic()
        if not over and now - since > _SAME_WISH:
            since = now
            raise Interrupted(number, remark)

    before = {number: default for number, default in _DEFAULTS.items() if signal.getsignal(number) is default}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        over = True
        for number, default in before.items():
            signal.signal(number, default)
    if received:  # while the handlers were put back, or where Python drops exceptions, as in a __del__
        raise Interrupted(received[0], remark)


def end_by(interrupt: KeyboardInterrupt) -> int:
    """Says so in one line and ends the process by the signal, so that shells and schedulers see that it was one.

    Returns:
        The exit status of a shell for that signal, where the system has no such end: on Windows.
    """
    if not isinstance(interrupt, Interrupted):
        interrupt = Interrupted(signal.SIGINT)
    with contextlib.suppress(OSError):
        print(f"resnet_cuda: {interrupt}", file=sys.stderr)
    with contextlib.suppress(OSError):
        if sys.stdout is not None:
            sys.stdout.flush()
    if os.name == "posix":
        signal.signal(interrupt.number, signal.SIG_DFL)
        signal.raise_signal(interrupt.number)
    return 128 + interrupt.number
