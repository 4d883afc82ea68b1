"""A missing or broken extension, the program's information, the compiled libraries' symbols."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_cuda
from resnet_cuda import _extension

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(resnet_cuda.__file__).parent

PROBE = """
import sys, warnings
# The finder of an editable install would find the checkout's library for the copy's missing one.
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch, resnet_cuda
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    y = resnet_cuda.ops.deform_conv2d(x, torch.zeros(1, 18, 4, 4), torch.randn(3, 2, 3, 3), padding=1)
    resnet_cuda.layers.FrozenBatchNorm2d(3)(y, relu=True, inplace=True).sum().backward()
ours = [str(w.message) for w in seen if "resnet_cuda" in str(w.message)]
assert len(ours) == 1, ours
assert "circular" not in ours[0] and "RESNET_CUDA_BUILD" in ours[0], ours
assert resnet_cuda.backend() == "reference"
assert x.grad.any()
try:
    resnet_cuda.use_backend("native")
except RuntimeError as error:
    assert "not loaded" in str(error) and "circular" not in str(error)
else:
    raise AssertionError("use_backend('native') must fail")
print("WARNING", ours[0])
"""


def run(code, folder, path=None):
    environment = {**os.environ, "PYTHONPATH": str(path or folder)}
    environment.pop("RESNET_CUDA_BACKEND", None)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def copy_of_the_package(folder):
    shutil.copytree(PACKAGE, folder / "resnet_cuda", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return folder / "resnet_cuda"


def test_without_the_extension_everything_runs_on_the_reference(tmp_path):
    copy_of_the_package(tmp_path)
    result = run(PROBE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path / 'resnet_cuda'} was installed without its compiled part" in result.stdout
    assert "Reinstall" in result.stdout


def test_a_checkout_that_is_not_compiled(tmp_path):
    copy_of_the_package(tmp_path)
    (tmp_path / "setup.py").touch()
    result = run(PROBE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert (
        f"the checkout at {tmp_path} has no compiled part (never compiled, or installed with RESNET_CUDA_BUILD=none)"
        in result.stdout
    )
    assert f"pip install -e {tmp_path}," in result.stdout


def test_an_extension_for_another_python(tmp_path):
    package = copy_of_the_package(tmp_path)
    (package / "_C.cpython-36m-x86_64-linux-gnu.so").touch()
    result = run(PROBE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "is for another Python (_C.cpython-36m-x86_64-linux-gnu.so)" in result.stdout


INFO = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]
from resnet_cuda.__main__ import main
sys.exit(main({arguments}))
"""


@pytest.mark.skipif(not _extension.CPU_LOADED, reason="the extension is not built")
def test_a_checkout_in_front_of_an_installed_package(tmp_path):
    """As after `pip install .` in the clone: Python finds the clone first, which has no libraries."""
    checkout, installed = tmp_path / "checkout", tmp_path / "site-packages"
    copy_of_the_package(checkout)
    (checkout / "setup.py").touch()
    shutil.copytree(PACKAGE, installed / "resnet_cuda", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "benchmarks", checkout / "benchmarks", ignore=shutil.ignore_patterns("results"))
    both = f"{checkout}{os.pathsep}{installed}"
    sentence = (
        f"{checkout / 'resnet_cuda'}, which has no compiled part, shadows the installed {installed / 'resnet_cuda'}, "
        "which has one"
    )
    shadowed = run(INFO.format(arguments=["info"]), checkout, both)
    assert shadowed.returncode == 0, shadowed.stderr
    assert f"reference ({sentence})" in shadowed.stdout
    assert sentence in shadowed.stderr
    assert f"pip install -e {checkout}" in shadowed.stderr

    for arguments in (["bench", "--quick", "frozen_bn"], ["bench", "--device", "cuda"]):
        refused = run(INFO.format(arguments=arguments), checkout, both)
        assert refused.returncode == 2, refused.stdout
        assert sentence in refused.stderr
        assert "--allow-reference or RESNET_CUDA_BACKEND=reference" in refused.stderr
        assert not refused.stdout

    elsewhere = run(INFO.format(arguments=["info"]), tmp_path, installed)
    assert "backend: native" in elsewhere.stdout


def test_a_broken_extension_too(tmp_path):
    package = copy_of_the_package(tmp_path)
    (package / "_C.abi3.so").write_bytes(b"\x7fELF and then nothing")
    result = run(PROBE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "cannot be loaded" in result.stdout


def test_information():
    result = subprocess.run([sys.executable, "-m", "resnet_cuda", "info"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    facts = dict(line.strip().split(": ", 1) for line in result.stdout.splitlines())
    assert facts["resnet_cuda"] == resnet_cuda.__version__
    assert facts["built with torch"] == _extension.build_info().get("torch", "not built")
    assert facts["backend"] == ("native" if _extension.CPU_LOADED else "reference")
    for name in ("torch", "built with CUDA", "GPU architectures", "CPU operators", "CUDA operators", "GPUs"):
        assert facts[name]


def program(*arguments):
    command = [sys.executable, "-m", "resnet_cuda", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_information_as_json():
    result = program("info", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["resnet_cuda"] == resnet_cuda.__version__
    assert facts["folder"] == str(PACKAGE)
    assert facts["backend"] == ("native" if _extension.CPU_LOADED else "reference")
    assert facts["CUDA_operators"] == ("native" if _extension.CUDA_LOADED else f"reference ({_extension.CUDA_ERROR})")
    assert not [name for name in facts if " " in name]


def test_the_version():
    result = program("--version")
    assert (result.returncode, result.stdout) == (0, f"resnet_cuda {resnet_cuda.__version__}\n")


def test_the_program_is_named_as_it_was_called(capsys, monkeypatch):
    from resnet_cuda.__main__ import main

    for called, name in (
        ("/usr/bin/resnet-cuda", "resnet-cuda"),
        ("/x/resnet_cuda/__main__.py", "python -m resnet_cuda"),
    ):
        monkeypatch.setattr(sys, "argv", [called])
        with pytest.raises(SystemExit):
            main(["--help"])
        assert f"usage: {name} " in capsys.readouterr().out


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_an_unknown_command():
    result = subprocess.run([sys.executable, "-m", "resnet_cuda", "dance"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "'info', 'bench'" in result.stderr or "info, bench" in result.stderr


def test_one_version():
    module = ast.parse((PACKAGE / "_version.py").read_text())
    (assigned,) = (ast.literal_eval(node.value) for node in module.body if isinstance(node, ast.Assign))
    assert resnet_cuda.__version__ == assigned
    if _extension.CPU_LOADED:
        assert _extension.build_info()["version"] == assigned
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # from a checkout that is not installed
        assert importlib.metadata.version("resnet_cuda") == assigned
    # Nowhere else: the version in the metadata is dynamic.
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def libraries():
    return sorted(PACKAGE.glob("*.so"))


def output_of(*command):
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


needs_binutils = pytest.mark.skipif(
    not (shutil.which("readelf") and shutil.which("nm")), reason="binutils are not installed"
)


@needs_binutils
def test_the_libraries_need_no_particular_torch_or_cuda():
    """Only the stable ABI's C functions: no C++ symbol of ATen, c10 or torch, no CUDA runtime, nothing of Python's torch."""
    assert libraries() or not _extension.CPU_LOADED
    for library in libraries():
        needed = re.findall(r"NEEDED.*\[(.*)\]", output_of("readelf", "-d", library))
        assert not [name for name in needed if re.search("cudart|torch_python|torch_cuda|c10", name)], library
        undefined = [line.split()[-1] for line in output_of("nm", "-D", "--undefined-only", library).splitlines()]
        cpp = [name for name in undefined if re.match(r"_ZN?K?(2at|3c10|5torch|NK?2at|NK?3c10|NK?5torch)", name)]
        assert not cpp, (library, cpp)
        assert any(name.startswith("aoti_torch_") for name in undefined), library


@needs_binutils
def test_instruction_sets_do_not_leak():
    """AVX code only in functions of that instruction set's own namespace: on another machine nothing else may run it."""
    (library,) = [path for path in libraries() if path.name.startswith("_C.")] or pytest.skip("not built")
    names = output_of("nm", "-C", "--defined-only", library)
    assert not re.findall(r" W .*(?:avx2|avx512)", names)  # a weak function is one that the linker may merge


def test_the_reference_is_measured_where_it_is_asked_for(monkeypatch):
    benchmarks = pytest.importorskip("benchmarks.__main__")
    monkeypatch.setattr(_extension, "CPU_LOADED", False)
    monkeypatch.delenv("RESNET_CUDA_BACKEND", raising=False)
    assert "measure the slow PyTorch reference" in benchmarks.why_refused(benchmarks.parse(["--device", "cpu"]))
    assert benchmarks.why_refused(benchmarks.parse(["--device", "cpu", "--allow-reference"])) is None
    monkeypatch.setenv("RESNET_CUDA_BACKEND", "reference")
    assert benchmarks.why_refused(benchmarks.parse(["--device", "cpu"])) is None
