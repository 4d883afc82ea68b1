"""Compilers that are too old for the sources, or too new for nvcc: an error that says what to do."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from build_native import BuildError, compiler_versions, host_compiler, make_plan, native
from build_native.toolkit import find_toolkit


def script(path: Path, *lines: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
    return str(path)


def compiler_with(path: Path, **macros: int) -> str:
    """A compiler that prints these macros when asked for its own."""
    defined = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    return script(path, f"printf %s {shlex.quote(defined)}")


GCC_9 = {"__GNUC__": 9, "__GNUC_MINOR__": 3}


@pytest.mark.parametrize(
    ("macros", "identity", "refused"),
    [
        (GCC_9, ("GCC", 9), True),
        ({"__GNUC__": 10}, ("GCC", 10), False),
        ({"__GNUC__": 16}, ("GCC", 16), False),
        ({"__GNUC__": 4, "__clang_major__": 10}, ("Clang", 10), True),
        ({"__GNUC__": 4, "__clang_major__": 11}, ("Clang", 11), False),
        ({"__GNUC__": 4, "__clang_major__": 10, "__apple_build_version__": 10001145}, None, False),
        ({}, None, False),  # an unknown compiler is tried
    ],
)
def test_a_compiler_that_is_too_old_is_named_before_it_starts(macros, identity, refused, tmp_path):
    compiler = (compiler_with(tmp_path / "cc", **macros), "-m64")
    assert compiler_versions.identify(compiler) == identity
    if not refused:
        compiler_versions.check(compiler)
        return
    with pytest.raises(BuildError) as error:
        compiler_versions.check(compiler)
    name, version = identity
    assert f"{compiler[0]} -m64, is {name} {version}; the sources need GCC 10 or Clang 11 or later" in str(error.value)
    assert "Set CXX to a newer one" in str(error.value)


@pytest.mark.parametrize(
    ("macros", "quiet"),
    [(GCC_9, 0), ({"__clang_major__": 12}, 2), ({"__clang_major__": 18}, 1), ({"__clang_major__": 19}, 0)],
)
def test_warnings_of_older_clangs_in_every_file_are_off(macros, quiet, tmp_path):
    assert len(compiler_versions.quiet((compiler_with(tmp_path / "cc", **macros),))) == quiet


def test_the_build_asks_first(fake_toolkit, monkeypatch, tmp_path):
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cpu")
    monkeypatch.setenv("CXX", compiler_with(tmp_path / "cc", **GCC_9))
    with pytest.raises(BuildError, match="is GCC 9"):
        native.build(make_plan(), "1.2.3")


def test_this_machines_compiler_is_new_enough():
    try:
        compiler = make_plan().compiler
    except BuildError as error:
        pytest.skip(str(error))
    if compiler is None:
        pytest.skip("nothing is compiled here")
    compiler_versions.check(compiler)


UNSUPPORTED = (
    "In file included from cuda_runtime.h:82:",
    "host_config.h:137:2: error: #error -- unsupported GNU version! gcc versions later than 15 are not supported!",
    "host_config.h:138:2: error: another",
)


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        (None, "gcc, the default: "),
        ("CXX", "that of CXX, g++ -m64: "),
        ("NVCC_CCBIN", "that of NVCC_CCBIN, g++ -m64: "),
    ],
)
def test_a_compiler_that_nvcc_does_not_take_is_named_once(variable, named, tmp_path, monkeypatch):
    for name in ("CXX", "NVCC_CCBIN"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "g++ -m64")
    monkeypatch.setattr(host_compiler.shutil, "which", lambda name: f"/usr/bin/{name}")
    nvcc = script(tmp_path / "nvcc", *(f"echo {shlex.quote(line)} >&2" for line in UNSUPPORTED), "exit 1")
    with pytest.raises(BuildError) as error:
        host_compiler.check([nvcc, *host_compiler.ccbin(("g++", "-m64"), tmp_path)])
    text = str(error.value)
    assert named + UNSUPPORTED[1] + "\n" in text
    assert "another" not in text
    assert "NVCC_CCBIN=" in text
    assert "RESNET_CUDA_BUILD=cpu" in text


def test_a_compiler_that_nvcc_takes(tmp_path):
    host_compiler.check([script(tmp_path / "nvcc", "exit 0")])


def test_the_build_asks_nvcc_first(fake_toolkit, monkeypatch):
    nvcc = fake_toolkit()
    text = nvcc.read_text()
    nvcc.write_text(
        text.replace("#!/bin/sh", '#!/bin/sh\ncase " $* " in *" -DUSE_CUDA "*) echo "error: no"; exit 1;; esac')
    )
    monkeypatch.setenv("CUDA_HOME", str(nvcc.parents[1]))
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cuda")
    with pytest.raises(BuildError, match="cannot compile even an empty file"):
        native.build(make_plan(), "1.2.3")


def test_nvccs_own_variable_names_its_compiler(tmp_path, monkeypatch):
    """With both set, CXX is for the C++ files."""
    monkeypatch.setattr(host_compiler.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("CXX", "g++-16")
    assert host_compiler.ccbin(("g++-16",), tmp_path) == ["-ccbin", "g++-16"]
    monkeypatch.setenv("NVCC_CCBIN", "g++-14")
    assert host_compiler.ccbin(("g++-16",), tmp_path) == ["-ccbin", "g++-14"]


def test_without_gcc_nvcc_calls_the_compiler_of_the_other_files(fake_toolkit, monkeypatch, tmp_path):
    """By itself nvcc calls gcc: the toolkit was not usable where there is only Clang."""
    nvcc = fake_toolkit()
    text = nvcc.read_text()
    nvcc.write_text(text.replace("#!/bin/sh", '#!/bin/sh\ncase "$*" in *.cu*) [ "$2" = -ccbin ] || exit 1;; esac'))
    monkeypatch.setenv("CUDA_HOME", str(nvcc.parents[1]))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    script(tmp_path / "bin" / "clang++")
    toolkit, tried = find_toolkit(("clang++",))
    assert tried == []
    assert toolkit.root == nvcc.parents[1]
    assert native.device_command(make_plan())[-2:] == ["-ccbin", "clang++"]
