"""ncu, compute-sanitizer and pytest as steps, with stand-ins for the tools: found, missing, failing, too slow."""

import importlib.util
import json
import os

import pytest

from benchmarks.gpu import tools
from benchmarks.gpu.processes import ROOT, Places
from benchmarks.gpu.steps import load
from benchmarks.records import Results, read

TABLE = """==PROF== Connected to process 1
==PROF== Profiling "SampleColumns" - 0: 0%....100% - 5 passes
"ID","Kernel Name","gpu__time_duration.sum","launch__grid_size","lts__t_sector_hit_rate.pct","other"
"","","nsecond","","%",""
"0","void SampleColumns<float, 8>","23,584","858","91.52","x"
"1","sm90_gemm","18,000","1,024","n/a","x","a further column"
"2","cut off","1"
"""


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """``stage(name, script)`` puts a tool on the path; gives places and results of a GPU run without a GPU."""
    bin_, imports = tmp_path / "bin", tmp_path / "imports"
    for folder in (bin_, imports):
        folder.mkdir()
    (imports / "benchmarks").symlink_to(ROOT / "benchmarks")
    monkeypatch.setenv("PATH", str(bin_), prepend=os.pathsep)

    def put(name, script):
        (bin_ / name).write_text(f"#!/bin/bash\n{script}\n")
        (bin_ / name).chmod(0o755)

    put("noise", "true")
    return put, Places(tmp_path, imports, None, "cuda", True), Results(tmp_path / "results.jsonl", device="cuda")


WRITE = 'while [ "$1" != --log-file ]; do shift; done; cat > "$2" <<\'END\'\n{text}\nEND\nexit {code}'


def test_ncu_profiles_both_stages_and_the_fused_kernels(stage):
    put, places, results = stage
    put("ncu", f'echo "$@" >> {places.output}/arguments; ' + WRITE.format(text=TABLE, code=0))
    outcome = tools.ncu(places, 20, results)
    assert outcome.status == "ok", outcome
    calls = (places.output / "arguments").read_text().splitlines()
    requests = [json.loads(call[call.index("{") :]) for call in calls]
    assert [request["step"] for request in requests] == ["C4", "C3", "C4 fused"]
    functions = ["profiled", "profiled", "profiled_fused"]
    assert [request["run"] for request in requests] == [f"benchmarks.gpu.kernels:{name}" for name in functions]
    assert all(callable(load(request["run"])) and request["device"] == "cuda" for request in requests)
    for call in calls:
        assert "--cache-control none" in call and "--kernel-name" not in call  # cuBLAS' kernels, too
        assert all(f"--section {section}" in call for section in tools.SECTIONS)
    kernels = [record for record in read(results.path) if record["kind"] == "ncu"]
    time, grid, hits = "gpu__time_duration.sum, nsecond", "launch__grid_size", "lts__t_sector_hit_rate.pct, %"
    assert [(k["stage"], k["name"], k[time], k[grid], k.get(hits)) for k in kernels[:2]] == [
        ("C4", "void SampleColumns<float, 8>", 23584, 858, 91.52),
        ("C4", "sm90_gemm", 18000, 1024, None),  # "n/a" is no number
    ]
    assert len(kernels) == 9 and "other" not in kernels[0]


def test_ncu_without_permission_is_asked_once(stage):
    put, places, results = stage
    put("ncu", WRITE.format(text="==ERROR== ERR_NVGPUCTRPERM - no permission", code=1))
    outcome = tools.ncu(places, 20, results)
    assert (outcome.status, outcome.error) == ("error", "C4: ERR_NVGPUCTRPERM - no permission")
    assert [record["item"] for record in read(results.path)] == ["ncu, C4"]


def test_ncu_is_cut_at_its_time(stage):
    put, places, results = stage
    put("ncu", "exec sleep 60")
    outcome = tools.ncu(places, 4, results)
    assert outcome.status == "timeout" and outcome.seconds < 6
    assert [record["item"] for record in read(results.path)] == ["ncu, C4", "ncu, C3", "ncu, C4 fused"]


@pytest.mark.parametrize("name", ["ncu", "compute-sanitizer"])
def test_a_tool_that_is_missing(stage, monkeypatch, name):
    _, places, results = stage
    monkeypatch.setattr(tools, "find", lambda _: None)
    monkeypatch.setattr(tools, "run_command", lambda command, *_: tools.Outcome("ok", 0.0))
    step = tools.ncu if name == "ncu" else tools.sanitizer
    assert step(places, 20, results).status == "ok"
    (record,) = read(results.path)
    assert (record["item"], record["reason"]) == (name, f"there is no {name}")


CLEAN = {"memcheck": "ERROR SUMMARY: 0 errors", "racecheck": "RACECHECK SUMMARY: 0 hazards displayed (0 errors)"}
CLEANLY = ("clean", 3, True)


@pytest.mark.parametrize(
    ("memcheck", "status", "error", "verdict"),
    [
        (f'echo "========= {CLEAN["memcheck"]}"', "ok", None, CLEANLY),
        (
            'echo "========= ERROR SUMMARY: 2 errors"; exit 9',
            "error",
            "memcheck: exit status 9",
            ("not clean", 3, False),
        ),
        ('echo "no summary"', "error", "memcheck: its summary is not", ("not clean", 3, False)),
        ("exec sleep 60", "timeout", "memcheck: cut after 3 s", ("no verdict", 3, False)),
    ],
    ids=["clean", "errors", "no summary", "cut"],
)
def test_the_sanitizer(stage, memcheck, status, error, verdict):
    """racecheck runs at the same time, and has its own verdict."""
    put, places, results = stage
    shapes = f'for shape in 1 2 3; do echo "{tools.DONE}shape $shape"; done'
    racecheck = f'echo "========= {CLEAN["racecheck"]}"'
    put("compute-sanitizer", f'echo "$@"\n{shapes}\nif [ "$2" = memcheck ]; then {memcheck}; else {racecheck}; fi')
    outcome = tools.sanitizer(places, 3, results)
    assert outcome.status == status and outcome.seconds < 5
    assert outcome.error is None if error is None else outcome.error.startswith(error)
    verdicts = {one["item"]: (one["verdict"], one["shapes"], one["clean"]) for one in read(results.path)}
    assert verdicts == {"memcheck": verdict, "racecheck": CLEANLY}
    for name in tools.SANITIZERS:  # by which the program chooses its dtypes
        assert f'"step": "{name}"' in (places.output / f"{name}.log").read_text()


XDIST = """[gw0] [  1%] PASSED tests/ops/test_a.py::test_x[a b]
[gw1] [  2%] FAILED tests/ops/test_a.py::test_y
[gw5] [100%] SKIPPED tests/cuda/test_b.py::test_z
"""
PLAIN = """tests/ops/test_a.py::test_x[a b] PASSED [  1%]
tests/ops/test_a.py::test_y FAILED [  2%]
tests/cuda/test_b.py::test_z SKIPPED (no GPU) [100%]
FAILED tests/ops/test_a.py::test_y - assert 0
"""


@pytest.mark.parametrize("log", [XDIST, PLAIN], ids=["xdist", "plain"])
def test_a_suite_that_was_cut_is_counted_by_its_lines(log):
    counts = tools.counted(log)
    assert counts["failures"] == ["tests/ops/test_a.py::test_y"]
    assert {word: counts[word] for word in ("passed", "failed", "error", "skipped")} == {
        "passed": 1,
        "failed": 1,
        "error": 0,
        "skipped": 1,
    }


@pytest.mark.parametrize(("found", "options"), [(None, []), ("a spec", ["-n", "6", "--dist", "worksteal"])])
def test_the_suite_runs_in_processes_where_it_can(monkeypatch, found, options):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "xdist" else "a spec")
    assert tools.parallel() == options
