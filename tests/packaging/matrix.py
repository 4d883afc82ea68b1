"""Builds from source with several versions of torch and runs the wheels under others; prints a table.

    python tests/packaging/matrix.py [--torch 2.10.0 2.11.0 newest] [--tested newest] [--folder DIR] [--keep]

For each version: a virtual environment, the wheel built in it from the source distribution (with the CUDA part where
there is an nvcc), installed, its ``info`` and the operators' tests. Then the newest version's wheel under the oldest
version and the other way round, without the tests that run no compiled operator. Exit status 1 where anything failed.
An environment is removed when its work is done, so that two lie on the disk at most, 6 GB each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")
# What tests of the operators need beside torch, and what a build without isolation needs.
PACKAGES = ("numpy", "pyyaml", "pytest", "pytest-xdist", "ninja", "pybind11>=2.13", "setuptools>=64", "wheel")
TESTS = ("tests/ops", "tests/reference", "tests/helpers", "tests/layers", "tests/test_backend.py")


class StepError(Exception):
    """A step that failed; its text is what goes into the table."""


@dataclass
class Row:
    """One wheel under one torch."""

    torch: str
    built_with: str
    libraries: str = "-"
    tests: str = "not run"
    ok: bool = False
    seconds: float = 0.0


@dataclass
class Matrix:
    folder: Path
    architectures: str
    keep: bool
    tests: tuple[str, ...] = TESTS
    tested: tuple[str, ...] = ()  # versions whose own build is tested elsewhere
    rows: list[Row] = field(default_factory=list)

    def run(self, command: list[str | Path], what: str, cwd: Path | None = None, **variables: str) -> str:
        """The command's output, which the log gets as well.

        Raises:
            StepError: naming the step and the output's last line.
        """
        print(f"    {time.strftime('%T')} {what}", flush=True)
        environment = {**os.environ, **variables}
        environment.pop("PYTHONPATH", None)
        result = subprocess.run(
            [*map(str, command)], cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        with (self.folder / "log").open("a") as log:
            log.write(f"=== {what}: {' '.join(map(str, command))}\n{result.stdout}\n")
        if result.returncode != 0:
            lines = [line for line in result.stdout.strip().splitlines() if line.strip()]
            raise StepError(f"{what} failed: {lines[-1] if lines else f'exit status {result.returncode}'}")
        return result.stdout

    def environment(self, version: str) -> Path:
        """The Python of this torch's virtual environment, made where it is not there."""
        folder = self.folder / f"torch-{version}"
        python = folder / "bin" / "python"
        if not python.exists():
            self.run([sys.executable, "-m", "venv", folder], "venv")
            torch = "torch" if version == "newest" else f"torch=={version}"
            pip = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile"]
            try:
                self.run([*pip, torch, *PACKAGES], f"pip install {torch}")
            except StepError:
                shutil.rmtree(folder)  # half an environment would be taken for a whole one
                raise
        return python

    def remove(self, version: str) -> None:
        if not self.keep:
            shutil.rmtree(self.folder / f"torch-{version}", ignore_errors=True)

    def sources(self) -> Path:
        """The unpacked source distribution, so that whatever it lacks shows."""
        folder = self.folder / "sources"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        code = f"from build_native import backend; print(backend.build_sdist({str(folder)!r}))"
        python = next(self.folder.glob("torch-*/bin/python"))
        self.run([python, "-c", f"import sys; sys.path.insert(0, '.'); {code}"], "source distribution", ROOT)
        (archive,) = folder.glob("*.tar.gz")
        shutil.unpack_archive(archive, folder, filter="data")
        (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
        return unpacked

    def wheel(self, version: str) -> Path:
        """Built from source with this torch."""
        python = self.environment(version)
        target = self.folder / f"wheel-{version}"
        shutil.rmtree(target, ignore_errors=True)
        command = [python, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", target]
        has_nvcc = shutil.which("nvcc") is not None
        variables = {
            "RESNET_CUDA_BUILD": "cuda" if has_nvcc else "cpu",
            "TORCH_CUDA_ARCH_LIST": self.architectures,
        }
        self.run([*command, self.sources()], f"build with {version}", **variables)
        (wheel,) = target.glob("*.whl")
        return wheel

    def trial(self, version: str, built_with: str, wheel: Path) -> None:
        """One row: what the installed wheel says about itself, and its tests."""
        started = time.monotonic()
        row = Row(version, built_with)
        self.rows.append(row)
        try:
            python = self.environment(version)
            self.run([python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel], "install")
            with tempfile.TemporaryDirectory() as elsewhere:  # where no checkout shadows what is installed
                self._look(python, row, Path(elsewhere))
                if version == built_with and version in self.tested:
                    row.tests, row.ok = "by make test", True
                else:
                    # The Python files are those that this torch's own wheel has: only what is compiled is new here.
                    options = () if version == built_with else ("-m", "not reference")
                    self._test(python, row, Path(elsewhere), *options)
        except StepError as error:
            row.tests = str(error) if row.tests == "not run" else row.tests
        row.seconds = time.monotonic() - started

    def _look(self, python: Path, row: Row, elsewhere: Path) -> None:
        facts = json.loads(self.run([python, "-W", "ignore", "-m", "resnet_cuda", "info", "--json"], "info", elsewhere))
        row.torch, row.built_with = facts["torch"], facts["built_with_torch"]
        cuda = facts["CUDA_operators"]
        row.libraries = f"{facts['backend']} / {'loaded' if cuda == 'native' else cuda}"
        if facts["backend"] != "native" or "site-packages" not in facts["folder"]:
            raise StepError(f"not native: {facts['CPU_operators']} in {facts['folder']}")
        # A torch with CUDA loads the library that was built where there is an nvcc.
        if "CUDA none" not in facts["torch"] and facts["built_with_CUDA"] != "none" and cuda != "native":
            raise StepError(f"the CUDA library is not loaded: {cuda}")

    def _test(self, python: Path, row: Row, elsewhere: Path, *options: str) -> None:
        shutil.copytree(ROOT / "tests", elsewhere / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        command = [python, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
        command += ["-n", "auto", "--maxprocesses", "8", "--dist", "loadfile", *options, *self.tests]
        try:
            output = self.run(command, "operators' tests", elsewhere)
        except StepError as error:
            row.tests = str(error).removeprefix("operators' tests failed: ").strip("= ")
            raise
        row.tests, row.ok = output.strip().splitlines()[-1].strip("= "), True

    def of_all(self, versions: list[str]) -> None:
        """Oldest and newest first, and each other's wheels, then the versions between."""
        oldest, newest = versions[0], versions[-1]
        wheels: dict[str, Path] = {}
        for version in dict.fromkeys((oldest, newest)):
            self.from_source(version, wheels)
        for version, other in ((oldest, newest), (newest, oldest)):
            if other in wheels and other != version:
                print(f"{version}, the wheel built with {other}", flush=True)
                self.trial(version, other, wheels[other])
            self.remove(version)
        for version in versions[1:-1]:
            self.from_source(version, wheels)
            self.remove(version)

    def from_source(self, version: str, wheels: dict[str, Path]) -> None:
        print(f"{version}, from source", flush=True)
        try:
            wheels[version] = self.wheel(version)
        except StepError as error:
            self.rows.append(Row(version, version, tests=str(error)))
            return
        self.trial(version, version, wheels[version])

    def table(self) -> str:
        lines = ["| torch (its CUDA) | built with torch | CPU / CUDA library | operators' tests |", "|---|---|---|---|"]
        for row in self.rows:
            tests = re.sub(r" in [\d.]+s.*", f" in {row.seconds:.0f} s", row.tests)
            lines.append(f"| {row.torch} | {row.built_with} | {row.libraries} | {tests} |")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", nargs="+", default=VERSIONS, metavar="VERSION", help="oldest first; or 'newest'")
    parser.add_argument("--folder", type=Path, help="for the environments and the log; a new one by default")
    parser.add_argument("--keep", action="store_true", help="the environments, and use those of an earlier run")
    parser.add_argument("--architectures", default="8.0", help="TORCH_CUDA_ARCH_LIST of the builds (8.0)")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH", help="others than the operators' tests")
    parser.add_argument(
        "--tested", nargs="+", default=(), metavar="VERSION", help="whose own build `make test` has tested: not again"
    )
    chosen = parser.parse_args()
    folder = (chosen.folder or Path(tempfile.mkdtemp(prefix="matrix-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    matrix = Matrix(folder, chosen.architectures, chosen.keep, tuple(chosen.tests), tuple(chosen.tested))
    matrix.of_all(list(chosen.torch))
    print(f"{matrix.table()}\nlog: {folder / 'log'}")
    return 0 if all(row.ok for row in matrix.rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
