"""Libraries of an earlier build beside newer Python files: they are not called, and a message says what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from helpers.cpp_library import compiler
from helpers.processes import PACKAGE, run_python
from helpers.without_libraries import PROBE, copy_of_the_package

from build_native.sources import digest
from resnet_cuda import _extension, _libraries, info
from resnet_cuda._schemas import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
needs_the_library = pytest.mark.skipif(not _extension.CPU_LOADED, reason="the extension is not built")


def test_the_schemas_are_those_of_the_sources():
    text = (ROOT / "csrc" / "registration.cpp").read_text()
    calls = re.findall(r"m\.def\((.*?)\);", text, re.S)
    assert ["".join(re.findall(r'"([^"]*)"', call)) for call in calls] == [f"{n}{rest}" for n, rest in SCHEMAS.items()]


@needs_the_library
def test_the_schemas_are_those_that_are_registered():
    for name, rest in SCHEMAS.items():
        (registered,) = torch._C._jit_get_schemas_for_operator(f"resnet_cuda::{name}")
        assert registered == torch._C.parse_schema(f"resnet_cuda::{name}{rest}")
    assert _libraries.operators_that_differ(_extension.library()) == []


def stale(folder, old, new):
    """A copy of the package whose library has other bytes of the same length."""
    package = copy_of_the_package(folder)
    library = _extension.library()
    content = library.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    (package / library.name).write_bytes(content.replace(old, new))
    return package


@needs_the_library
@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b"\0frozen_batch_norm(", b"\0frozen_batch_norn(", "frozen_batch_norm"),  # an operator is missing
        (b"bool relu, bool need_scale) -> Tensor\0", b"bool RELU, bool need_scale) -> Tensor\0", "frozen_batch_norm_"),
        (b"int out_channels, Tensor? bias", b"int out_channels, Tensor  bias", "conv2d_winograd"),
    ],
)
def test_other_operators_are_not_called(tmp_path, old, new, named):
    package = stale(tmp_path, old, new)
    result = run_python("-c", PROBE, path=tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (file,) = package.glob("_C*")
    sentence = f"{file} was built from other sources than these Python files; its operators differ: {named}"
    assert f"{sentence}. So everything runs" in result.stdout
    assert "pip install --force-reinstall --no-deps --no-cache-dir SOURCES, RESNET_CUDA_BUILD unset" in result.stdout
    said = run_python("-m", "resnet_cuda", "info", path=tmp_path, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert f"CPU operators: reference ({sentence})" in said.stdout
    assert re.search("compiled part: (version 0|of an unknown version)", said.stdout)


@needs_the_library
def test_a_checkout_names_its_own_folder(tmp_path):
    stale(tmp_path, b"\0frozen_bn_relu(", b"\0frozen_bn_rely(")
    (tmp_path / "setup.py").touch()
    result = run_python("-c", PROBE, path=tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"Compile these: pip install -e {tmp_path}, RESNET_CUDA_BUILD" in result.stdout


@needs_the_library
def test_another_version_with_the_same_operators_is_said(tmp_path):
    package = copy_of_the_package(tmp_path)
    shutil.copy2(_extension.library(), package)
    (package / "_version.py").write_text("__version__ = '9.9'\n")
    built = _extension.build_info()["version"]
    result = run_python("-m", "resnet_cuda", "info", "--json", path=tmp_path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"is of version {built}, the Python files of 9.9" in result.stderr
    facts = json.loads(result.stdout)
    assert facts["backend"] == "native"
    assert facts["compiled_part"].startswith(f"version {built}")
    assert "; the Python files are of version 9.9: run pip install " in facts["compiled_part"]


def test_sources_that_have_changed_since_are_said(monkeypatch):
    monkeypatch.setattr(_extension, "compiled_version", lambda: info.__version__)
    now = digest(ROOT / "csrc")
    assert info._compiled_part(now) == f"version {info.__version__}, sources {now}"
    assert f"csrc beside it has changed since ({now}): run pip install -e " in info._compiled_part("0" * 16)


def test_the_digest_is_of_names_and_contents(tmp_path):
    def made(**files):
        shutil.rmtree(tmp_path / "csrc", ignore_errors=True)
        for name, text in files.items():
            path = tmp_path / "csrc" / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return digest(tmp_path / "csrc")

    first = made(a_cpp="int a;", b__a_h="1", c_cu="")
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert made(c_cu="", b__a_h="1", a_cpp="int a;", note_md="x") == first
    others = [
        made(a_cpp="int b;", b__a_h="1", c_cu=""),
        made(b_cpp="int a;", b__a_h="1", c_cu=""),
        made(a_cpp="int a;"),
    ]
    assert len({first, *others}) == 4


@pytest.fixture
def compiled(tmp_path):
    """A library of ``csrc/common/built_from.cpp`` alone."""
    if not shutil.which(compiler()[0]):
        pytest.skip("no C++ compiler")
    library = tmp_path / "_cuda_kernels.so"
    facts = ["-DRESNET_CUDA_SOURCES_SYMBOL=resnet_cuda_sources_0123456789abcdef", '-DRESNET_CUDA_VERSION="1.2.3"']
    command = [*compiler(), "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,--gc-sections", "-s", *facts]
    subprocess.run([*command, str(ROOT / "csrc/common/built_from.cpp"), "-o", str(library)], check=True)
    return library


def test_a_library_says_what_it_was_built_from(compiled, tmp_path):
    assert _libraries.is_built_from(compiled, "0123456789abcdef")
    assert not _libraries.is_built_from(compiled, "0123456789abcde0")
    assert _libraries.version_of(compiled) == "1.2.3"
    assert _libraries.operators_that_differ(compiled) == list(SCHEMAS)
    for missing in (tmp_path / "nothing.so", tmp_path):
        assert _libraries.version_of(missing) is None
        assert _libraries.operators_that_differ(missing) == list(SCHEMAS)
    (tmp_path / "empty.so").touch()
    assert not _libraries.is_built_from(tmp_path / "empty.so", "0123456789abcdef")


@pytest.mark.parametrize("sources", ["0123456789abcdef", "fedcba9876543210", None])
def test_kernels_of_another_build_are_not_loaded(compiled, monkeypatch, sources):
    """``_cuda_kernels.so`` is loaded where its digest is that of ``_C``, or ``_C`` is from before there was one."""
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(_extension, "_has_cuda_kernels", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(_extension, "CUDA_LIBRARY", compiled)
    monkeypatch.setattr(_extension, "CPU_LOADED", True)
    monkeypatch.setattr(_extension, "CUDA_LOADED", False)
    monkeypatch.setattr(_extension, "CUDA_ERROR", None)
    monkeypatch.setattr(_extension, "build_info", lambda: {} if sources is None else {"sources": sources})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _extension._load_cuda()
    if sources == "fedcba9876543210":
        assert not loaded
        assert not _extension.CUDA_LOADED
        assert "_cuda_kernels.so was built from other sources than the compiled extension" in _extension.CUDA_ERROR
        assert "RESNET_CUDA_BUILD=cuda" in _extension.CUDA_ERROR
    else:
        assert loaded == [str(compiled)]
        assert _extension.CUDA_LOADED


def test_kernels_are_not_loaded_beside_those_of_another_library(compiled, monkeypatch):
    """A second registration would end the process."""
    monkeypatch.setattr(torch.ops, "load_library", lambda path: pytest.fail("it was loaded"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, value in {"CUDA_LIBRARY": compiled, "CPU_LOADED": True, "CUDA_LOADED": False, "CUDA_ERROR": None}.items():
        monkeypatch.setattr(_extension, name, value)
    monkeypatch.setattr(_extension, "_is_of_this_build", lambda library: True)
    monkeypatch.setattr(_extension, "_has_cuda_kernels", lambda: True)
    _extension._load_cuda()
    assert not _extension.CUDA_LOADED
    assert "another _cuda_kernels.so than" in _extension.CUDA_ERROR and "restart Python" in _extension.CUDA_ERROR


@needs_the_library
def test_the_installed_libraries_are_of_one_build():
    sources = _extension.build_info().get("sources")
    if sources is None:
        pytest.skip("built before libraries said what they are built from")
    assert _libraries.version_of(_extension.library()) == _extension.build_info()["version"]
    for library in PACKAGE.glob("*.so"):
        assert _libraries.is_built_from(library, sources)
