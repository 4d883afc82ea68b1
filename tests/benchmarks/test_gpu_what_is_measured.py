"""Which package a GPU run imports: the installed one, the one it has built, or libraries from another machine."""

import importlib.machinery
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import resnet_cuda

pytest.importorskip("torchvision")

from benchmarks.gpu import building
from benchmarks.gpu.__main__ import ENDED_EARLY
from benchmarks.gpu.processes import ROOT, Places
from benchmarks.records import Results, latest, read

PACKAGE = Path(resnet_cuda.__file__).resolve().parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


def environment(output):
    (file,) = output.glob("*.jsonl")
    return latest(read(file), kind="environment")


def test_no_build_measures_what_is_installed(checkout, gpu_run, installed, tmp_path):
    """From within a checkout whose package has no libraries, and with it on $PYTHONPATH besides."""
    python, package = installed
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests", checkout / "tests", ignore=ignored)
    options = ("--no-build", "--only", "ours,tests")
    result = gpu_run(checkout, tmp_path / "out", *options, python=python, PYTHONPATH=str(checkout))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"resnet_cuda: {package}, torch" in (tmp_path / "out" / "tests.log").read_text()
    found = environment(tmp_path / "out")
    assert found["imported"] == str(package / "__init__.py")
    assert (found["backend"], found["cpu_extension"]) == ("native", "loaded")


def test_libraries_from_another_machine(checkout, gpu_run, installed, brought, tmp_path):
    """The checkout's Python files with them; what is installed is not touched."""
    python, package = installed
    for path in package.glob("*.so"):
        shutil.move(path, brought)
    (checkout / "resnet_cuda" / "_version.py").write_text("__version__ = '9.9'\n")
    out = tmp_path / "out"
    result = gpu_run(checkout, out, "--libraries", str(brought), "--only", "ours", python=python)
    assert result.returncode == 0, result.stdout + result.stderr
    found = environment(out)
    assert found["imported"] == str(checkout / "build" / "gpu_run" / "resnet_cuda" / "__init__.py")
    assert (found["backend"], found["cpu_extension"], found["resnet_cuda"]) == ("native", "loaded", "9.9")
    (file,) = out.glob("*.jsonl")
    assert set(latest(read(file), kind="libraries")["libraries"]) == {path.name for path in brought.iterdir()}


def prepared(tmp_path, libraries, device="cpu"):
    output, imports = tmp_path / "out", tmp_path / "imports"
    for folder in (output, imports):
        folder.mkdir(exist_ok=True)
    return Places(output, imports, tmp_path / "site", device, True, libraries), Results(output / "r.jsonl")


@pytest.fixture
def brought(tmp_path):
    """A folder for libraries from another machine."""
    folder = tmp_path / "brought"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_libraries_of_another_python_or_without_cuda(device, brought, tmp_path):
    where, results = prepared(tmp_path, brought, device)
    assert "no library at all" in building.libraries(where, 10, results).error
    (brought / "_C.cpython-27-riscv.so").touch()
    outcome = building.libraries(where, 10, results)
    assert outcome.status == "error"
    assert f"_C{SUFFIX}, which this Python needs, but _C.cpython-27-riscv.so" in outcome.error
    if device == "cuda":
        (brought / f"_C{SUFFIX}").touch()
        assert "there is no _cuda_kernels.so" in building.libraries(where, 10, results).error


def test_a_folder_that_is_not_there(tmp_path):
    where, results = prepared(tmp_path, tmp_path / "nowhere")
    outcome = building.libraries(where, 10, results)
    assert outcome.error == f"--libraries {tmp_path / 'nowhere'}: there is no such folder"


def test_ldd_is_asked(brought, tmp_path):
    """A library whose own needs are not met is refused before anything imports it."""
    compiler = shutil.which("cc") or shutil.which("g++")
    if compiler is None or shutil.which("ldd") is None:
        pytest.skip("needs a compiler and ldd")
    source = tmp_path / "empty.c"
    source.write_text("int planted(void) { return 1; }\n")
    needed = tmp_path / "libnotthere.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(needed)], check=True)
    options = ["-Wl,--no-as-needed", f"-L{tmp_path}", "-lnotthere", "-o", str(brought / f"_C{SUFFIX}")]
    subprocess.run([compiler, "-shared", "-fPIC", str(source), *options], check=True)
    needed.unlink()
    where, results = prepared(tmp_path, brought)
    outcome = building.libraries(where, 10, results)
    assert outcome.status == "error"
    assert f"_C{SUFFIX}: libnotthere.so => not found" in outcome.error


def test_a_file_that_is_no_library(brought, tmp_path):
    (brought / f"_C{SUFFIX}").write_text("text\n")
    where, results = prepared(tmp_path, brought)
    assert building.libraries(where, 10, results).status == "error"


def test_torchs_libraries_are_found():
    """Those of a built package lack nothing: its torch lies where the loader does not look."""
    libraries = sorted(PACKAGE.glob("*.so"))
    if not libraries or shutil.which("ldd") is None:
        pytest.skip("needs a built package and ldd")
    assert [building.unresolved(path, 10) for path in libraries] == [[]] * len(libraries)


def test_an_unbuilt_checkout_is_never_on_the_path(tmp_path, monkeypatch):
    unbuilt, built, other = (tmp_path / name for name in ("unbuilt", "built", "other"))
    for folder in (unbuilt / "resnet_cuda", built / "resnet_cuda", other):
        folder.mkdir(parents=True)
    (built / "resnet_cuda" / f"_C{SUFFIX}").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(unbuilt), str(built), str(other)]))
    where = Places(tmp_path, tmp_path / "imports", None, "cpu", True)
    wanted = [str(tmp_path / "imports"), str(built), str(other)]
    assert where.environment()["PYTHONPATH"].split(os.pathsep) == wanted
    where = Places(tmp_path, tmp_path / "imports", tmp_path / "site", "cpu", True)
    assert where.environment()["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "site"), *wanted]


def test_what_was_built_from_the_same_files_is_not_built_again(checkout, tmp_path, monkeypatch):
    """Pure Python, to be quick; a file that changes makes a new build."""
    monkeypatch.setenv("RESNET_CUDA_BUILD", "none")
    monkeypatch.setenv("PYTHONPATH", "")
    where, results = prepared(tmp_path, None)
    for _ in range(2):
        assert building.build(where, 120, results).status == "ok", (where.output / "build.log").read_text()
    assert [record["reused"] for record in read(results.path)] == [False, True]
    code = "import resnet_cuda; print(resnet_cuda.__file__)"
    command, options = [sys.executable, "-W", "ignore", "-c", code], {"cwd": where.imports, "env": where.environment()}
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    assert printed.stdout.strip() == str(tmp_path / "site" / "resnet_cuda" / "__init__.py"), printed.stderr
    before = building.sources_stamp(dict(os.environ))
    monkeypatch.setattr(building, "ROOT", checkout)
    assert building.sources_stamp(dict(os.environ)) == before
    (checkout / "resnet_cuda" / "_version.py").write_text("__version__ = '9.9'\n")
    assert building.sources_stamp(dict(os.environ)) != before


@pytest.mark.parametrize(
    ("program", "status", "words"),
    [
        ("raise SystemExit('no driver')", "error", "not known what to build for: exit status 1; last: no driver"),
        ("import time; time.sleep(60)", "timeout", "not known what to build for: cut after 2 s"),
    ],
)
def test_a_build_asks_which_gpu_is_there(tmp_path, monkeypatch, program, status, words):
    monkeypatch.setattr(building, "CAPABILITY", program)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    where, results = prepared(tmp_path, None, "cuda")
    outcome = building.build(where, 4, results)
    assert outcome.status == status and words in outcome.error and outcome.seconds < 4


def test_a_build_that_leaves_no_library_has_failed(tmp_path, monkeypatch):
    """pip ends well where RESNET_CUDA_BUILD=auto finds nothing to compile with."""
    monkeypatch.setattr(building, "run_command", lambda *_: building.Outcome("ok", 1.0))
    monkeypatch.setenv("RESNET_CUDA_BUILD", "auto")
    where, results = prepared(tmp_path, None)
    outcome = building.build(where, 10, results)
    assert outcome.status == "error"
    assert outcome.error.startswith(f"after the build there is no _C{SUFFIX}")


def test_both_at_once_are_refused(checkout, gpu_run, tmp_path):
    result = gpu_run(checkout, tmp_path, "--no-build", "--libraries", str(tmp_path))
    assert result.returncode == 2 != ENDED_EARLY
    assert "not allowed with argument" in result.stderr
