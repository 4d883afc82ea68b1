"""What is compiled anew, and from where: builds of two small files by a stand-in for the compiler."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from build_native import BuildError, commands, make_plan, native, toolkit

pytest.importorskip("ninja")
pytest.importorskip("pybind11")
ROOT = Path(__file__).resolve().parents[2]
COMPILER = r"""#!/bin/sh
case "$*" in *--version*|*-dM*) exit;; esac
while [ $# -gt 0 ]; do
  case "$1" in -o) out=$2;; -MF) depfile=$2;; -c) source=$2;; esac
  shift
done
echo "$source" >> "$LOG"
cat "$source" > "$out" 2> /dev/null || echo linked > "$out"
[ -z "$depfile" ] || echo "object:" > "$depfile"
"""
BUILD = "import os, sys; sys.path.insert(0, os.environ['ROOT'])\nfrom pathlib import Path\nfrom build_native import *\n"


class Checkout:
    """Two sources in a folder, and a compiler that notes what it compiles."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.compiler = folder, folder / "log", folder / "c++"
        self.sources = [folder / "csrc" / "part" / f"{name}.cpp" for name in "ab"]
        self.sources[0].parent.mkdir(parents=True)
        for source in self.sources:
            source.write_text("first")
        self.compiler.write_text(COMPILER)
        self.compiler.chmod(0o755)

    def build(self) -> list[str]:
        """The names of the sources that were compiled."""
        self.log.write_text("")
        native.build(make_plan(), "1.2.3")
        return sorted(Path(line).stem for line in self.log.read_text().splitlines() if line)

    def object_of(self, source: Path) -> Path:
        (found,) = (self.folder / "built").glob(f"*/cpu/part/{source.name}.o")
        return found


@pytest.fixture
def checkout(tmp_path, monkeypatch, fake_toolkit):
    made = Checkout(tmp_path / "with space, $dollar: colon$ and both")
    monkeypatch.setattr(native, "CSRC", made.folder / "csrc")
    monkeypatch.setattr(native, "BUILT", made.folder / "built")
    monkeypatch.setattr(native, "cpu_sources", lambda: made.sources)
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cpu")
    monkeypatch.setenv("CXX", shlex.quote(str(made.compiler)))
    monkeypatch.setenv("LOG", str(made.log))
    return made


def test_only_what_changed_is_compiled(checkout):
    assert checkout.build() == ["a", "b"]
    assert checkout.build() == []
    checkout.sources[1].write_text("second")
    assert checkout.build() == ["b"]


def test_a_change_that_is_older_than_the_build_is_compiled(checkout):
    """Unpacked from an archive, say: ninja compares times alone."""
    checkout.build()
    a = checkout.sources[0]
    a.write_text("second")
    os.utime(a, (10**9, 10**9))
    assert checkout.build() == ["a", "b"]
    assert checkout.object_of(a).read_text() == "second"
    assert checkout.build() == []


def test_a_file_that_is_only_older_is_not_compiled(checkout):
    checkout.build()
    os.utime(checkout.sources[0], (10**9, 10**9))
    assert checkout.build() == []


@pytest.mark.parametrize("words", ["{}", "env A=1 {}"])
def test_paths_of_compilers_are_relative_to_the_working_folder(checkout, monkeypatch, words):
    monkeypatch.chdir(checkout.folder)
    monkeypatch.setenv("CXX", words.format("./c++"))
    assert checkout.build() == ["a", "b"]


def test_a_compiler_that_only_a_shell_runs(checkout, monkeypatch):
    checkout.compiler.write_text(COMPILER.removeprefix("#!/bin/sh\n"))
    assert checkout.build() == ["a", "b"]


def test_messages_in_another_encoding(checkout):
    lines = ("#!/bin/sh", r"printf 'Warnung: \344\n' >&2", r"case $1 in --version) printf 'g++ \344 1.0\n'; exit; esac")
    checkout.compiler.write_text(COMPILER.replace("#!/bin/sh", "\n".join(lines)))
    assert checkout.build() == ["a", "b"]
    (facts,) = checkout.folder.glob("built/*/build_facts.h")
    assert '#define RESNET_CUDA_BUILD_COMPILER "g++ ? 1.0"\n' in facts.read_text(encoding="ascii")


def test_a_second_build_of_the_same_folder_waits(checkout, monkeypatch):
    """Its compiler would write objects that the first one links."""
    slow = COMPILER.replace('echo "$source"', 'echo "begin $source" >> "$LOG"; sleep 0.3; echo "$source"')
    checkout.compiler.write_text(slow)
    code = BUILD + "\n".join(
        (
            "from build_native import native",
            "native.CSRC, native.BUILT = Path('csrc').resolve(), Path('built').resolve()",
            "native.cpu_sources = lambda: sorted(native.CSRC.glob('*/*.cpp'))",
            "native.build(make_plan(), '1.2.3')",
        )
    )
    variables = {**os.environ, "ROOT": str(ROOT), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    builds = [
        subprocess.Popen(command, cwd=checkout.folder, env=variables, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [it.communicate(timeout=100)[0] for it in builds]
    assert [it.returncode for it in builds] == [0, 0]
    assert sum("waiting for another build" in it for it in outputs) == 1
    lines = [line for line in checkout.log.read_text().splitlines() if line.endswith(".cpp")]
    assert len(lines) == 4  # each source begins and ends once


def test_the_host_compilers_script_is_in_no_temporary_folder(fake_toolkit, monkeypatch, tmp_path):
    """On some machines nothing in those may be executed, and nvcc was not usable with a CXX of several words."""
    nvcc = fake_toolkit()
    ask = f'#!/bin/sh\necho "$*" >> {shlex.quote(str(tmp_path / "asked"))}'
    nvcc.write_text(nvcc.read_text().replace("#!/bin/sh", ask))
    monkeypatch.setattr(toolkit, "BUILT", tmp_path / "built")
    monkeypatch.setenv("CXX", "g++ -m64")
    toolkit.root_of(nvcc, ("g++", "-m64"))
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    script = Path(asked.split()[asked.split().index("-ccbin") + 1])
    assert script.parent == tmp_path / "built"
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("value", ["g++-999", "g++ -m64"])
def test_a_host_compiler_that_is_not_there_is_named(fake_toolkit, monkeypatch, value):
    """With RESNET_CUDA_BUILD=auto the package would have been built without its CUDA part."""
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit().parents[1]))
    monkeypatch.setenv("NVCC_CCBIN", value)
    with pytest.raises(BuildError, match=f"NVCC_CCBIN is '{value.replace('+', '.')}', which is not found"):
        make_plan()
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cpu")
    make_plan()


def test_the_host_compiler_may_be_a_folder(fake_toolkit, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit().parents[1]))
    monkeypatch.setenv("NVCC_CCBIN", str(tmp_path))
    assert native.device_command(make_plan())[-2:] == ["-ccbin", str(tmp_path)]


def test_output_of_any_bytes_is_text():
    printed = commands.run(["printf", r"\344\n"]).stdout
    assert os.fsencode(printed) == b"\xe4\n"


def test_the_plan_is_printed_whatever_the_outputs_encoding(tmp_path):
    compiler = tmp_path / "grün" / "c++"
    compiler.parent.mkdir()
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = {**os.environ, "CXX": str(compiler), "RESNET_CUDA_BUILD": "cpu", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "setup.py", "build_ext", "--help"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert rb"gr\xfcn/c++" in result.stdout
