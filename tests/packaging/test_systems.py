"""What is built, and how it is linked, on systems other than the one that the tests run on."""

from __future__ import annotations

import shlex
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import checkout as tree

from build_native import BuildError, backend, make_plan, native, systems
from build_native.plan import Plan, Torch
from resnet_cuda import _extension

pytest.importorskip("ninja")
pytest.importorskip("pybind11")


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("RESNET_CUDA_BUILD", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")


def link_command(folder):
    """What the library of the CPU part is linked by, as words."""
    native.write_ninja_file(Plan("cpu", ("c++",), Torch("2.10.0", Path("/torch"))), folder, "1.2.3")
    text = (folder / "build.ninja").read_text().split(": link ")[1]
    variables = dict(line.strip().split(" = ", 1) for line in text.splitlines() if " = " in line)
    return shlex.split(variables["linker"]), shlex.split(variables["libraries"])


@pytest.mark.parametrize(
    ("system", "linker", "libraries"),
    [
        ("linux", ["c++", "-shared"], ["-L/torch/lib", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]),
        ("darwin", ["c++", "-shared", "-undefined", "dynamic_lookup"], ["-L/torch/lib", "-ltorch", "-ltorch_cpu"]),
    ],
)
def test_the_link_command_is_the_systems(system, linker, libraries, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(native.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": ""}))
    assert link_command(tmp_path) == (linker, libraries)


def test_on_windows_nothing_is_compiled_unless_asked_for(windows):
    """So `pip install` needs no compiler there, and downloads no second torch for the build."""
    made = make_plan()
    assert made.compiler is None
    assert "nothing is compiled: pure Python" in made.describe()
    assert f"on Windows: {systems.WHY_NOT_ON_WINDOWS}" in made.describe()
    assert backend._requirements() == []


@pytest.mark.parametrize("choice", ["cpu", "cuda"])
def test_on_windows_a_compiled_part_that_is_asked_for_is_an_error(choice, windows, monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_BUILD", choice)
    for ask in (make_plan, backend._requirements):
        with pytest.raises(
            BuildError, match=f"RESNET_CUDA_BUILD is '{choice}', but on Windows nothing can be compiled"
        ):
            ask()


def test_on_windows_the_choice_of_no_compiled_part_needs_no_remark(windows, monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_BUILD", "none")
    assert make_plan() == Plan("none")


def test_on_windows_the_package_says_why_it_has_no_compiled_part(windows):
    why, remedy = _extension._why_missing()
    assert why.endswith("has no compiled part, which is not built on Windows")
    assert "WSL 2" in remedy


def test_a_wheel_made_on_windows_is_pure_python(tmp_path):
    pytest.importorskip("setuptools")
    checkout = tree.copy(tmp_path / "checkout")
    (checkout / "dist").mkdir()
    # setuptools is imported first: it has code of its own for Windows.
    code = "from build_native import backend, systems\nsystems.compiles = lambda: False\n"
    tree.run(checkout, f"{code}backend.build_wheel('dist')", RESNET_CUDA_BUILD="auto", PATH="/nowhere")
    (wheel,) = (checkout / "dist").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "/_C" in name]
