"""Child processes with deadlines: a command, and a worker that runs phases. Nothing here needs torch."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Outcome:
    """``status`` is ok, error or timeout."""

    status: str
    seconds: float
    error: str | None = None


def end(process: subprocess.Popen) -> None:
    """Ends a child and all that it started (each child leads a process group of its own)."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-400:] if lines else "no output"


def reason(log: Path) -> str:
    """Why a Python process ended: the fault that it was told of, if any, else its last line."""
    lines = log.read_text(errors="replace").splitlines()[-200:]
    fault = next((line.strip() for line in reversed(lines) if line.startswith("Fatal Python error")), None)
    return fault or f"last: {last_line(log)}"


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
            with log.open("ab") as output:
                output.write(f"$ {' '.join(command)}\n".encode())
                output.flush()
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    cwd=folder,
                    start_new_session=True,
                )
            processes.append(process)
        for process, (_, log) in zip(processes, commands, strict=True):
            try:
                code = process.wait(timeout=max(0.0, begin + seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                error = f"cut after {seconds:.0f} s; last: {last_line(log)}"
                outcomes.append(Outcome("timeout", time.monotonic() - begin, error))
                continue
            error = f"exit status {code}; last: {last_line(log)}" if code else None
            outcomes.append(Outcome("error" if code else "ok", time.monotonic() - begin, error))
    finally:
        for process in processes:
            end(process)
    return outcomes


class Worker:
    """A process that runs phases one after the other, so that what they compare ran in one process.

    It is started at the first phase, and again at the next one after a phase that hung, failed (its CUDA context may be
    broken) or ended the process.
    """

    def __init__(self, arguments: list[str], log: Path, environment: Mapping[str, str], folder: Path):
        self._command = [sys.executable, "-u", "-X", "faulthandler", "-m", "benchmarks.gpu.worker", *arguments]
        self._log, self._environment, self._folder = log, dict(environment), folder
        self._process: subprocess.Popen | None = None
        self._answers = -1

    def _start(self) -> subprocess.Popen:
        answers, answer_end = os.pipe()
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                [*self._command, "--answer-to", str(answer_end)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
                pass_fds=(answer_end,),
            )
        os.close(answer_end)
        self._process, self._answers = process, answers
        return process

    def run(self, phase: str, target: str, seconds: float) -> Outcome:
        """Calls ``target`` (``module:function``); its records carry ``phase``."""
        begin = time.monotonic()
        process = self._process or self._start()
        request = json.dumps({"phase": phase, "run": target, "seconds": seconds}) + "\n"
        try:
            process.stdin.write(request.encode())
            process.stdin.flush()
        except BrokenPipeError:
            self.stop()
            return Outcome("error", time.monotonic() - begin, f"the worker is gone; {reason(self._log)}")
        answer = self._read_answer(begin + seconds)
        spent = time.monotonic() - begin
        if answer is None:
            self.stop()
            return Outcome("timeout", spent, f"cut after {seconds:.0f} s; last: {last_line(self._log)}")
        if not answer.endswith(b"\n"):
            code = process.wait()
            self.stop()
            return Outcome("error", spent, f"the worker ended with status {code}; {reason(self._log)}")
        error = json.loads(answer)["error"]
        if error is not None:
            self.stop()
            return Outcome("error", spent, error)
        return Outcome("ok", spent)

    def _read_answer(self, until: float) -> bytes | None:
        """One line; less than a line where the process ended; None at the deadline."""
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            part = os.read(self._answers, 65536)
            if not part:
                return answer
            answer += part
        return answer

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process.stdin.close()
            os.close(self._answers)
            self._process, self._answers = None, -1
