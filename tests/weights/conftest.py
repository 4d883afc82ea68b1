"""Files of weights by their bytes, and a process that reads those that no library writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from helpers.processes import PACKAGE, TESTS


@pytest.fixture
def written(tmp_path):
    """A function that writes bytes and gives the path, whose name tells nothing."""

    def write_bytes(data: bytes):
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write_bytes


@pytest.fixture(scope="module")
def reader():
    """A process that reads what its folders hold."""
    with subprocess.Popen(
        [sys.executable, "-m", "helpers.read_limited"],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE.parent, TESTS)))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.fixture
def outcomes(reader, tmp_path):
    """A function that reads files by their names, and gives of each the error's message or "content"."""

    def outcomes(hostile: dict[str, bytes]) -> dict[str, str]:
        folder = tmp_path / "files"
        folder.mkdir()
        files = {name: re.sub(r"\W", "_", name) for name in hostile}
        assert len(set(files.values())) == len(hostile) > 0
        for name, data in hostile.items():
            (folder / files[name]).write_bytes(data)
        reader.stdin.write(f"{folder}\n")
        reader.stdin.flush()
        answer = reader.stdout.readline()
        assert answer, "the reading process has crashed, or was at it for minutes"
        got = json.loads(answer)
        for file, message in got.items():
            assert message == "content" or message.startswith(f"{folder / file}: "), message
            assert "\n" not in message
            assert len(message) < 800
            assert "more memory than there is" not in message, message
            assert "it cannot be read: " not in message, message  # the last resort, for what nobody has thought of
        return {name: got[file].removeprefix(f"{folder / file}: ") for name, file in files.items()}

    return outcomes


@pytest.fixture
def check(outcomes):
    """A function that reads files and compares what each gave with a regular expression."""

    def check(hostile: dict[str, tuple[bytes, str]]) -> None:
        got = outcomes({name: data for name, (data, _) in hostile.items()})
        wrong = {name: got[name] for name, (_, message) in hostile.items() if not re.search(message, got[name])}
        assert not wrong

    return check
