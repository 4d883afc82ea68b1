"""A GPU run in which build, import or a first call fails has nothing to measure: it ends, and its record says why."""

import time

import pytest

pytest.importorskip("torchvision")

from benchmarks.gpu.__main__ import ENDED_EARLY
from benchmarks.records import latest, read

SECONDS = 60  # far less than the steps behind would take


def assert_ended(result, output, step, *words):
    """One step has failed, none came behind it; record, summary and standard error say why."""
    assert result.returncode == ENDED_EARLY, result.stdout + result.stderr
    (file,) = output.glob("*.jsonl")
    records = read(file)
    ended = latest(records, kind="ended")
    assert ended["step"] == step
    for word in words:
        assert word in ended["reason"], ended
    steps = [record for record in records if record["kind"] == "step"]
    assert steps[-1]["step"] == step and steps[-1]["status"] != "ok"
    assert all(record["status"] == "ok" for record in steps[:-1])
    assert f"**Ended at once: {step} has failed: " in file.with_suffix(".md").read_text()
    assert f"ended at once, {step} has failed: " in result.stderr
    assert not any(record["kind"] == "time" for record in records)
    assert sum(record["seconds"] for record in steps) < SECONDS


def test_a_build_that_fails(checkout, gpu_run, tmp_path):
    """At the compiler's first word; the sources do not compile."""
    for path in (checkout / "csrc").rglob("*.cpp"):
        path.write_text("#error planted\n")
    result = gpu_run(checkout, tmp_path / "out", "--half", "1", RESNET_CUDA_BUILD="cpu")
    assert_ended(result, tmp_path / "out", "build", "error", "planted")


def test_a_build_without_a_compiler(checkout, gpu_run, tmp_path):
    result = gpu_run(checkout, tmp_path / "out", RESNET_CUDA_BUILD="cpu", CXX="/nowhere/g++")
    assert_ended(result, tmp_path / "out", "build", "/nowhere/g++")


def test_nothing_installed(checkout, gpu_run, installed, tmp_path):
    """The checkout's own package is there, but it is not what --no-build asks for."""
    python, package = installed
    package.rename(package.with_name("gone"))
    result = gpu_run(checkout, tmp_path / "out", "--no-build", python=python)
    assert_ended(result, tmp_path / "out", "start", "No module named 'resnet_cuda'")


def test_an_import_that_fails(checkout, gpu_run, installed, tmp_path):
    python, package = installed
    (package / "__init__.py").write_text("raise ImportError('planted')\n")
    result = gpu_run(checkout, tmp_path / "out", "--no-build", "--half", "2", python=python)
    assert_ended(result, tmp_path / "out", "start", "ImportError: planted")


FAULTS = {
    "raises": ("raise ValueError('planted')", "ValueError: planted"),
    "dies": ("import os; os.abort()", "Fatal Python error: Aborted"),
    "is wrong": ("return _right(*arguments, **options) * 1.1", "off by"),
}
WHERE = {"deform_conv2d": "__init__.py", "frozen_bn_relu": "__init__.py", "frozen_batch_norm": "frozen_bn.py"}


@pytest.mark.parametrize(
    ("operator", "fault"),
    [
        *((operator, fault) for operator in ("deform_conv2d", "frozen_bn_relu") for fault in FAULTS),
        ("frozen_batch_norm", "is wrong"),
    ],
)
def test_a_first_call_that_fails(fault, operator, checkout, gpu_run, installed, tmp_path):
    python, package = installed
    line, reason = FAULTS[fault]
    planted = f"\n\n_right = {operator}\n\n\ndef {operator}(*arguments, **options):\n    {line}\n"
    with (package / "ops" / WHERE[operator]).open("a") as file:
        file.write(planted)
    begin = time.monotonic()
    result = gpu_run(checkout, tmp_path / "out", "--no-build", python=python)
    assert_ended(result, tmp_path / "out", "start", reason)
    assert time.monotonic() - begin < SECONDS


def test_no_step_is_left(checkout, gpu_run, tmp_path):
    result = gpu_run(checkout, tmp_path, "--no-build", "--only", "build", "--skip", "start")
    assert result.returncode == 2
    assert "no step is left to run" in result.stderr
