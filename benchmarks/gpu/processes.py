"""Child processes: where they run, what they import, their deadlines. Nothing here needs torch."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "gpu_run"


@dataclass(frozen=True)
class Places:
    """The folders for logs and results, and for child processes and their imports.

    Child processes run in ``imports``, which contains only ``benchmarks``. The checkout is never on their path: its
    package, which has no libraries, would be measured instead of the installed one.
    """

    output: Path
    imports: Path
    site: Path | None  # where the package to be measured was put; None: it is installed
    device: str
    quick: bool
    libraries: Path | None = None  # a folder with libraries from another machine

    def environment(self) -> dict[str, str]:
        """For the children. Of $PYTHONPATH all is kept but a checkout whose package has no libraries."""
        paths = [str(path) for path in (self.site, self.imports) if path]
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep):
            package = Path(entry) / "resnet_cuda"
            if entry and (not package.is_dir() or any(package.glob("_C*.so"))):
                paths.append(str(Path(entry).resolve()))
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Outcome:
    """``status`` is ok, error, timeout or skipped."""

    status: str
    seconds: float
    error: str | None = None


def _start(command: list[str], log: Path, environment: Mapping[str, str], folder: Path, **options) -> subprocess.Popen:
    """Starts a child that leads a process group of its own, with its output appended to ``log``."""
    with log.open("ab", buffering=0) as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        options = {"stdout": output, "stderr": output, "start_new_session": True, **options}
        return subprocess.Popen(command, env=dict(environment), cwd=folder, **options)


def _end(process: subprocess.Popen) -> None:
    """Ends a child and all that it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][-400:] if lines else "no output"


def run_command(command: list[str], seconds: float, log: Path, environment: Mapping[str, str], folder: Path) -> Outcome:
    """Runs ``command`` in ``folder`` with its output appended to ``log``."""
    return run_commands([(command, log)], seconds, environment, folder)[0]


def run_commands(
    commands: Sequence[tuple[list[str], Path]], seconds: float, environment: Mapping[str, str], folder: Path
) -> list[Outcome]:
    """Runs several at the same time, each with its log, all below one deadline."""
    begin, processes, outcomes = time.monotonic(), [], []
    try:
        for command, log in commands:
            processes.append(_start(command, log, environment, folder, stdin=subprocess.DEVNULL))
        for process, (_, log) in zip(processes, commands, strict=True):
            try:
                code = process.wait(timeout=max(0.0, begin + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                error = f"cut after {seconds:.0f} s; last: {_last_line(log)}"
                outcomes.append(Outcome("timeout", time.monotonic() - begin, error))
                continue
            error = f"exit status {code}; last: {_last_line(log)}" if code else None
            outcomes.append(Outcome("error" if code else "ok", time.monotonic() - begin, error))
    finally:
        for process in processes:
            _end(process)
    return outcomes


class Worker:
    """A process that runs all steps and imports everything once.

    It is started at the first step, and restarted after a step that hung, failed (its CUDA context may be broken) or
    ended the process.
    """

    def __init__(self, log: Path, environment: Mapping[str, str], folder: Path):
        self._log, self._environment, self._folder = log, environment, folder
        self._process: subprocess.Popen | None = None

    def run(self, seconds: float, **request: object) -> Outcome:
        """Calls ``run`` (``module:function``) with a Context of what else is in the request."""
        begin = time.monotonic()
        if self._process is None:
            command = [sys.executable, "-u", "-X", "faulthandler", "-m", "benchmarks.gpu.worker"]
            self._answers, write_end = os.pipe()  # not stdout, where any library may print
            environment = {**self._environment, "RESNET_CUDA_ANSWERS": str(write_end)}
            pipes = {"stdin": subprocess.PIPE, "pass_fds": (write_end,)}
            self._process = _start(command, self._log, environment, self._folder, **pipes)
            os.close(write_end)
        with contextlib.suppress(BrokenPipeError):  # it is gone, as the end of its answers shows
            self._process.stdin.write(json.dumps({**request, "seconds": seconds}).encode() + b"\n")
            self._process.stdin.flush()
        if not select.select([self._answers], [], [], seconds)[0]:
            status, error = "timeout", f"cut after {seconds:.0f} s; last: {_last_line(self._log)}"
        elif answer := os.read(self._answers, 65536):  # written in one call
            error = json.loads(answer)["error"]
            status = "ok" if error is None else "error"
        else:
            status, error = "error", f"the worker ended with status {self._process.wait()}; {self._reason()}"
        if status != "ok":
            self.stop()
        return Outcome(status, time.monotonic() - begin, error)

    def _reason(self) -> str:
        """Why it ended: the fault that Python's faulthandler tells of, if any, else its last line."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
        fault = next((line.strip() for line in reversed(lines) if line.startswith("Fatal Python error")), None)
        return fault or f"last: {_last_line(self._log)}"

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process)
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            os.close(self._answers)
            self._process = None
