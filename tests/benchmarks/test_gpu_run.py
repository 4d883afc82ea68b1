"""The GPU run as a dry run on a CPU: every phase, deadlines, failures, the build; so that the script cannot rot."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import resnet_cuda
from benchmarks.gpu import expected, steps, tables
from benchmarks.gpu.__main__ import run
from benchmarks.gpu.commands import Places
from benchmarks.gpu.processes import run_command
from benchmarks.gpu.records import Results, latest, read
from benchmarks.gpu.steps import Step

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(resnet_cuda.__file__).resolve().parents[1]
pytest.importorskip("torchvision")


def environment(output):
    paths = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OUT": str(output), "PYTHON": sys.executable, "PYTHONPATH": paths}


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """The whole script; the build has a test of its own."""
    output = tmp_path_factory.mktemp("gpu_run")
    command = ["bash", str(ROOT / "benchmarks" / "gpu_run.sh"), "--device", "cpu", "--quick", "--no-build"]
    result = subprocess.run(command, env=environment(output), capture_output=True, text=True, timeout=170)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = output.glob("*.jsonl")
    return output, file, read(file), result.stdout


def test_every_step_is_ok(dry_run):
    _, _, records, _ = dry_run
    done = {record["step"]: record for record in records if record["kind"] == "step"}
    assert list(done) == [step.name for step in steps.STEPS if step.name != "build"]
    assert all(record["status"] == "ok" for record in done.values()), done


def test_every_line_says_that_it_is_a_dry_run(dry_run):
    output, file, records, printed = dry_run
    assert all(record["device"] == "cpu" and record["quick"] is True for record in records)
    assert len(records) == len(file.read_text().splitlines())
    for text in (printed, file.with_suffix(".md").read_text()):
        assert "DRY RUN on device cpu" in text
    assert sum(path.is_file() for path in output.iterdir()) <= 8


def test_every_phase_has_measured(dry_run):
    _, _, records, _ = dry_run
    kinds = {phase: {r["kind"] for r in records if r.get("phase") == phase} for phase in "012345678"}
    assert "environment" in kinds["0"]
    assert "ceiling" in kinds["1"]
    assert {"check", "accuracy", "checked"} <= kinds["2"]
    assert all("time" in kinds[phase] for phase in "3467")
    assert {"kernel", "kernels in all"} <= kinds["5"]
    assert {"memory", "spread"} <= kinds["8"]
    assert not any("gpu_us" in record for record in records)


def test_ours_is_measured_beside_torchvision(dry_run):
    _, _, records, _ = dry_run
    for direction in ("forward", "backward"):
        facts = {"kind": "time", "phase": "4", "stage": "C4", "batch": 8, "direction": direction}
        line = latest(records, candidate="resnet_cuda, float32, TF32 off", **facts)
        assert line["times_of_ours"]["torchvision, float32, TF32 off"] > 0
        assert max(line["error"].values()) < 1e-4
        assert line["predicted_us"] == {"forward": 870, "backward": 1860}[direction]
        assert line["rounds"] == 2  # A-B-A: twice in the only round


def test_the_tables_show_no_number_of_it(dry_run):
    _, file, records, _ = dry_run
    text = file.with_suffix(".md").read_text()
    table = text[text.index("| | predicted |") :].split("\n\n")[0]
    assert table.splitlines()[2:] and all(f" {tables.NOT_YET} " in line for line in table.splitlines()[2:])
    assert tables.gpu_results(records) == []


def test_the_tables_find_what_the_phases_write(dry_run):
    """The lines of this run as if a GPU had written them: every prediction has its value, but for what a CPU lacks."""
    _, _, records, _ = dry_run
    lines = [r | {"gpu_us": r["wall_us"]} if "wall_us" in r else r for r in records]
    missing = [row.item for row in expected.rows() if row.measure(lines) is None]
    lacking = ("mmcv", "torchvision autocast", "torchvision, autocast", "CUDA graph", "activation memory", "R-50-DCN")
    # A quick run measures the backbones at batch 1.
    unexpected = [item for item in missing if not any(word in item for word in (*lacking, "R-50-FPN training step"))]
    assert unexpected == []
    assert len(missing) < len(expected.rows()) / 2
    assert tables.NOT_YET not in tables.frozen_bn_table(lines).splitlines()[4]


def test_the_tests_are_collected(dry_run):
    output, _, records, _ = dry_run
    suites = {record["suite"]: record for record in records if record["kind"] == "tests"}
    assert set(suites) == {"cuda", "operators"}
    assert all(record["collected_only"] for record in suites.values())
    text = (output / "tests-cuda.log").read_text()
    assert "test_streams" in text and "test_large" in text


HANGS = "import time\ndef run(context):\n    context.write('before', item='hanging')\n    time.sleep(600)\n"
FAILS = "def run(context):\n    raise ValueError('planted')\n"
DIES = "import os\ndef run(context):\n    os.abort()\n"
WRITES = "import os\ndef run(context):\n    context.write('after', process=os.getpid())\n"


def test_a_phase_that_hangs_fails_or_dies_stops_no_other(tmp_path, monkeypatch):
    for name, text in {"hangs": HANGS, "fails": FAILS, "dies": DIES, "writes": WRITES}.items():
        (tmp_path / f"planted_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PACKAGE)]))
    results = Results(tmp_path / "results.jsonl", device="cpu", quick=True)
    order = ["writes", "writes", "hangs", "writes", "fails", "writes", "dies", "writes"]
    chosen = [
        Step(f"{index} {name}", name, 4 if name == "hangs" else 60, f"planted_{name}")
        for index, name in enumerate(order)
    ]
    outcomes = run(chosen, Places(tmp_path, None, "cpu", True), results, total=150)
    expected = {"writes": "ok", "hangs": "timeout", "fails": "error", "dies": "error"}
    assert [outcome.status for _, outcome in outcomes] == [expected[name] for name in order]
    by_step = {record["step"]: record for record in read(results.path) if record["kind"] == "step"}
    assert 7 <= by_step["2 hangs"]["seconds"] < 12  # 4 s, and 4 s that others have left
    assert by_step["4 fails"]["error"] == "ValueError: planted"
    assert "status -6" in by_step["6 dies"]["error"]
    records = read(results.path)
    assert latest(records, kind="before")["item"] == "hanging"  # what it had found before it hung is there
    processes = [record["process"] for record in records if record["kind"] == "after"]
    assert processes[0] == processes[1]  # one process as long as all goes well
    assert len(set(processes[1:])) == 4  # and a new one after each trouble


def test_no_step_begins_without_time(tmp_path):
    results = Results(tmp_path / "results.jsonl", device="cpu", quick=True)
    begin = time.monotonic()
    outcomes = run([Step("1", "", 60, "nothing")], Places(tmp_path, None, "cpu", True), results, total=5)
    assert [outcome.status for _, outcome in outcomes] == ["skipped"]
    assert time.monotonic() - begin < 2
    assert latest(read(results.path), kind="step")["error"] == "no time left"


def test_a_command_is_cut_with_its_children(tmp_path):
    log = tmp_path / "log"
    outcome = run_command(["bash", "-c", "sleep 300 & echo $!; wait"], 1, log, os.environ, tmp_path)
    assert outcome.status == "timeout"
    child = log.read_text().splitlines()[-1]
    time.sleep(0.2)
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_wrong_names_are_refused(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", "1,nine", "--output", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "no step 'nine'; allowed are build, 0, tests" in result.stderr


def test_all_steps_fit_the_total():
    assert sum(step.seconds for step in steps.STEPS) + steps.RESERVE_SECONDS <= steps.TOTAL_SECONDS


def test_the_build_is_what_the_phases_import(tmp_path, monkeypatch):
    """Into a folder of its own, which comes before the checkout; pure Python here, to be quick."""
    monkeypatch.setenv("RESNET_CUDA_BUILD", "none")
    monkeypatch.setenv("PYTHONPATH", "")
    from benchmarks.gpu import commands

    places = Places(tmp_path, tmp_path / "site", "cpu", True)
    results = Results(tmp_path / "results.jsonl", device="cpu", quick=True)
    outcome = commands.build(places, 120, results)
    assert outcome.status == "ok", (tmp_path / "build.log").read_text()
    code = "import resnet_cuda; print(resnet_cuda.__file__)"
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=places.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert printed.stdout.strip() == str(tmp_path / "site" / "resnet_cuda" / "__init__.py"), printed.stderr
    assert json.loads(results.path.read_text())["libraries"] == []
