"""All sources for all architectures asked for, as many compilations at once as there are cores."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from compile_gate.compiling import compile_source
from compile_gate.kernels import Kernel, kernels_of
from compile_gate.ptxas_report import warnings_in
from compile_gate.tools import Tools, sources


def workers() -> int:
    return int(os.environ.get("MAX_JOBS") or len(os.sched_getaffinity(0)))


class Gate:
    """Starts compiling at once; ``kernels`` waits for one architecture."""

    def __init__(self, tools: Tools, architectures: Iterable[str]) -> None:
        self.tools = tools
        self._pool = ThreadPoolExecutor(workers())
        self._running: dict[str, list[Future[list[Kernel]]]] = {
            architecture: [
                self._pool.submit(kernels_of, tools, source, architecture) for source in sources(architecture)
            ]
            for architecture in architectures
        }

    def kernels(self, architecture: str) -> list[Kernel]:
        return [kernel for future in self._running[architecture] for kernel in future.result()]

    def warnings(self, architecture: str) -> list[str]:
        logs = [compile_source(self.tools, source, architecture).log for source in sources(architecture)]
        return [warning for log in logs for warning in warnings_in(log)]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
