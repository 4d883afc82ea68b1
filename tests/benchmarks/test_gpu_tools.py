"""ncu, compute-sanitizer and pytest as steps, with stand-ins for the tools: found, missing, failing, too slow."""

import importlib.metadata
import os
import sys

import pytest

from benchmarks.gpu import suites, tools
from benchmarks.gpu.places import ROOT, Places
from benchmarks.gpu.records import Results, read

PYTHON = sys.executable
TABLE = """==PROF== Connected to process 1
==PROF== Profiling "SampleColumns" - 0: 0%....100% - 5 passes
"ID","Kernel Name","gpu__time_duration.sum","launch__grid_size","lts__t_sector_hit_rate.pct","other"
"","","nsecond","","%",""
"0","void SampleColumns<float, 8>","23,584","858","91.52","x"
"1","sm90_gemm","18,000","1,024","n/a","x"
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


def test_ncu_profiles_both_stages(stage):
    put, places, results = stage
    put("ncu", 'echo "$@" >> "$OUT_ARGUMENTS"; ' + WRITE.format(text=TABLE, code=0))
    os.environ["OUT_ARGUMENTS"] = str(places.output / "arguments")
    try:
        outcome = tools.ncu(places, 20, results)
    finally:
        del os.environ["OUT_ARGUMENTS"]
    assert outcome.status == "ok", outcome
    calls = (places.output / "arguments").read_text().splitlines()
    assert [call.split("--stage ")[1] for call in calls] == ["C4", "C3"]
    for call in calls:
        assert "--cache-control none" in call and "--kernel-name" not in call  # cuBLAS' kernels, too
        assert all(f"--section {section}" in call for section in tools.SECTIONS)
    kernels = [record for record in read(results.path) if record["kind"] == "ncu"]
    assert [(k["stage"], k["name"], k["us"], k["grid"]) for k in kernels[:2]] == [
        ("C4", "void SampleColumns<float, 8>", 23.584, 858),
        ("C4", "sm90_gemm", 18.0, 1024),
    ]
    assert kernels[0]["l2_hit_percent"] == 91.52 and "l2_hit_percent" not in kernels[1]
    assert len(kernels) == 4


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
    assert [record["item"] for record in read(results.path)] == ["ncu, C4", "ncu, C3"]


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


def sanitizer_script(memcheck, racecheck="", code=0):
    return f"""
for shape in 1 2 3; do echo "{tools.DONE}shape $shape"; done
if [ "$2" = memcheck ]; then {memcheck or f'echo "========= {CLEAN["memcheck"]}"'}; fi
if [ "$2" = racecheck ]; then {racecheck or f'echo "========= {CLEAN["racecheck"]}"'}; fi
exit {code}"""


def verdicts(results):
    return {record["item"]: (record["verdict"], record["shapes"], record["clean"]) for record in read(results.path)}


def test_the_sanitizer_is_clean(stage):
    put, places, results = stage
    put("compute-sanitizer", sanitizer_script(""))
    assert tools.sanitizer(places, 10, results).status == "ok"
    assert verdicts(results) == {"memcheck": ("clean", 3, True), "racecheck": ("clean", 3, True)}


def test_the_sanitizer_finds_something(stage):
    put, places, results = stage
    put("compute-sanitizer", sanitizer_script('echo "========= ERROR SUMMARY: 2 errors"; exit 9'))
    outcome = tools.sanitizer(places, 10, results)
    assert outcome.status == "error" and outcome.error.startswith("memcheck: exit status 9")
    assert verdicts(results) == {"memcheck": ("not clean", 3, False), "racecheck": ("clean", 3, True)}


def test_a_sanitizer_that_was_cut_gives_no_verdict(stage):
    """The other one has run at the same time, and has its own."""
    put, places, results = stage
    put("compute-sanitizer", sanitizer_script("exec sleep 60"))
    outcome = tools.sanitizer(places, 3, results)
    assert outcome.status == "timeout" and outcome.seconds < 5
    assert verdicts(results) == {"memcheck": ("no verdict", 3, False), "racecheck": ("clean", 3, True)}


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
    counts = suites.counted_lines(log)
    assert counts["failures"] == ["tests/ops/test_a.py::test_y"]
    assert {word: counts[word] for word in ("passed", "failed", "error", "skipped")} == {
        "passed": 1,
        "failed": 1,
        "error": 0,
        "skipped": 1,
    }


@pytest.mark.parametrize(
    ("version", "options"),
    [(None, []), ("2.5.0", ["-n", "6"]), ("3.2.1", ["-n", "6", "--dist", "worksteal"]), ("3.8.0rc1", None)],
)
def test_the_suite_runs_in_processes_where_it_can(monkeypatch, version, options):
    def installed(name):
        assert name == "pytest-xdist"
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    assert suites.parallel() == (["-n", "6", "--dist", "worksteal"] if options is None else options)
