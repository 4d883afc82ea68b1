"""The order of the matrix, what it puts into its table, and that it fails where anything does; nothing is installed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import matrix as script

FACTS = {"backend": "native", "folder": "/v/lib/site-packages/resnet_cuda", "CPU_operators": "native, avx2"}


class Recorded(script.Matrix):
    """Does what the steps would leave behind, and fails where ``broken`` says so."""

    broken = ""

    def run(self, command, what, cwd=None, **variables):
        self.steps.append(what)
        words = [str(word) for word in command]
        if what == "operators' tests":
            self.left_out.append(words[words.index("loadfile") + 1 : words.index(script.TESTS[0])])
        version = next(word for word in map(str, words) if "torch-" in word).split("torch-")[1].split("/")[0]
        if self.broken and self.broken in f"{version}: {what}":
            raise script.StepError(f"{what} failed: because")
        if what == "venv":
            (Path(words[-1]) / "bin").mkdir(parents=True)
            (Path(words[-1]) / "bin" / "python").touch()
        elif what.startswith("build"):
            target = Path(words[words.index("--wheel-dir") + 1])
            target.mkdir()
            (target / "resnet_cuda.whl").write_text(version)
        elif what == "install":
            self.installed = Path(words[-1]).read_text()
        elif what == "info":
            cuda = {"torch": f"{version} (CUDA 13.0)", "built_with_torch": self.installed, "built_with_CUDA": "13.0"}
            return json.dumps({**FACTS, **cuda, "CUDA_operators": self.cuda})
        return "...\n=== 7 passed, 2 skipped in 3.21s ==="

    def sources(self):
        return self.folder


@pytest.fixture
def matrix(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "copytree", lambda *arguments, **others: None)
    made = Recorded(tmp_path, "8.0", keep=False)
    made.steps, made.left_out, made.cuda = [], [], "native"
    return made


def test_each_from_source_and_the_ends_crossed(matrix):
    matrix.of_all(["2.10.0", "2.11.0", "2.15.0"])
    assert [(row.torch.split()[0], row.built_with) for row in matrix.rows] == [
        ("2.10.0", "2.10.0"),
        ("2.15.0", "2.15.0"),
        ("2.10.0", "2.15.0"),
        ("2.15.0", "2.10.0"),
        ("2.11.0", "2.11.0"),
    ]
    assert all(row.ok for row in matrix.rows)
    assert "| 2.10.0 (CUDA 13.0) | 2.15.0 | native / loaded | 7 passed, 2 skipped in 0 s |" in matrix.table()
    assert not list(matrix.folder.glob("torch-*"))  # removed: each weighs gigabytes
    # What runs no compiled operator is the same with every wheel under one torch.
    assert matrix.left_out == [[], [], ["-m", "not reference"], ["-m", "not reference"], []]


def test_what_make_test_has_tested_is_built_and_looked_at_only(matrix):
    matrix.tested = ("newest",)
    matrix.of_all(["2.10.0", "newest"])
    assert [row.tests for row in matrix.rows][1] == "by make test"
    assert matrix.steps.count("operators' tests") == 3  # the other's own, and both crossed
    assert matrix.steps.count("info") == 4
    matrix.cuda = "reference"
    matrix.rows.clear()
    matrix.of_all(["newest"])
    assert not matrix.rows[0].ok


def test_one_version_alone(matrix):
    matrix.of_all(["newest"])
    assert [row.built_with for row in matrix.rows] == ["newest"]
    assert "pip install torch" in matrix.steps
    assert not list(matrix.folder.glob("torch-*"))


@pytest.mark.parametrize(
    ("broken", "rows"), [("2.10.0: build", 4), ("2.10.0: operators' tests", 5), ("2.15.0: pip install", 4)]
)
def test_a_failure_is_in_the_table_and_the_rest_goes_on(matrix, broken, rows):
    matrix.broken = broken
    matrix.of_all(["2.10.0", "2.11.0", "2.15.0"])
    assert len(matrix.rows) == rows
    assert [row for row in matrix.rows if not row.ok]
    assert "because" in matrix.table()
    assert any(row.ok and row.torch.startswith("2.11.0") for row in matrix.rows)


def test_a_cuda_library_that_is_not_loaded_is_a_failure(matrix):
    matrix.cuda = "reference (_cuda_kernels.so cannot be loaded)"
    matrix.of_all(["2.10.0"])
    (row,) = matrix.rows
    assert not row.ok
    assert "the CUDA library is not loaded" in row.tests


def test_a_step_that_fails_is_named_with_its_last_line(tmp_path):
    made = script.Matrix(tmp_path, "8.0", keep=False)
    with pytest.raises(script.StepError, match="a step failed: the reason"):
        made.run([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], "a step")
    assert "the reason" in (tmp_path / "log").read_text()
