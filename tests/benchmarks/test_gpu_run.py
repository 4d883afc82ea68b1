"""The GPU run as a dry run on a CPU: both halves, every phase, deadlines; so that the script cannot rot."""

import os
import time
from pathlib import Path

import pytest

import resnet_cuda
from benchmarks import predictions, tables
from benchmarks.gpu import steps
from benchmarks.gpu.__main__ import run
from benchmarks.gpu.cells import CELLS
from benchmarks.gpu.processes import Places, run_command, run_commands
from benchmarks.gpu.steps import Step
from benchmarks.records import Results, latest, read

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(resnet_cuda.__file__).resolve().parents[1]
SESSION_SECONDS, COMMAND_SECONDS = 900, 600  # what one gets, in all and for a command
pytest.importorskip("torchvision")


PATHS = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="module", params=steps.HALVES)
def half(request, tmp_path_factory, gpu_run):
    """A half of the script; build, libraries and failures have tests of their own."""
    output = tmp_path_factory.mktemp("gpu_run")
    result = gpu_run(ROOT, output, "--no-build", "--half", str(request.param), PYTHONPATH=PATHS)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = output.glob("*.jsonl")
    return request.param, output, file, read(file), result.stdout


def test_every_step_is_ok(half):
    number, _, _, records, _ = half
    done = {record["step"]: record for record in records if record["kind"] == "step"}
    wanted = [step.name for step in steps.STEPS if number in step.halves and step.name not in ("build", "libraries")]
    assert list(done) == wanted
    assert all(record["status"] == "ok" for record in done.values()), done


def test_every_line_says_that_it_is_a_dry_run(half):
    _, output, file, records, printed = half
    assert all(record["device"] == "cpu" and record["quick"] is True for record in records)
    assert len(records) == len(file.read_text().splitlines())
    for text in (printed, file.with_suffix(".md").read_text()):
        assert "DRY RUN on device cpu" in text
    assert sum(path.is_file() for path in output.iterdir()) <= 8


KINDS = {
    1: {
        "0": {"environment", "check"},
        "1": {"ceiling"},
        "2": {"check", "accuracy", "checked"},
        "4": {"time"},
        "5": {"kernel", "kernels in all"},
        "6": {"time", "ceiling"},
        "7": {"time", "check"},
    },
    2: {"0": {"environment", "check"}, "4": {"time"}, "7": {"time", "check"}, "8": {"memory", "time"}},
}


def test_every_phase_has_measured(half):
    number, _, _, records, _ = half
    for phase, wanted in KINDS[number].items():
        kinds = {record["kind"] for record in records if record.get("phase") == phase}
        assert wanted <= kinds, phase
    assert not any("gpu_us" in record for record in records)
    skipped = [record for record in records if record["kind"] == "not measured" and "time left" in record["reason"]]
    assert skipped == []


def test_one_process_pays_for_the_imports(half):
    """Programs come in between, but the worker is the same from the first phase to the last."""
    _, _, _, records, _ = half
    assert len({record["run"] for record in records if "phase" in record}) == 1


def test_the_start_says_what_was_imported_and_calls_all_operators(half):
    _, _, _, records, _ = half
    assert latest(records, kind="environment")["imported"] == resnet_cuda.__file__
    names = [record["item"] for record in records if record.get("phase") == "0" and record["kind"] == "check"]
    assert {name.split(" (")[0] for name in names} == {"deform_conv2d", "frozen_bn_relu", "frozen_batch_norm"}


def test_ours_is_measured_beside_torchvision(half):
    number, _, _, records, _ = half
    if number != 1:
        pytest.skip("the first half's")
    for direction in ("forward", "backward"):
        facts = {"kind": "time", "phase": "4", "stage": "C4", "batch": 8, "direction": direction}
        line = latest(records, candidate="resnet_cuda, float32, TF32 off", **facts)
        assert line["times_of_ours"]["torchvision, float32, TF32 off"] > 0
        assert max(line["error"].values()) < 1e-4
        assert line["predicted_us"] == {"forward": 870, "backward": 1860}[direction]
        assert line["rounds"] == 2  # A-B-A: twice in the only round


def test_frozen_bn_stands_beside_a_copy_of_its_size(half):
    number, _, _, records, _ = half
    lines = [r for r in records if r["kind"] == "time" and r["phase"] == "6"]
    assert len(lines) == (3 * len(CELLS["frozen_bn"]) if number == 1 else 0)
    assert all(line["share_of_same_copy"] > 0 for line in lines)
    assert len({line["candidate"] for line in lines}) == (3 if lines else 0)


def test_the_tables_show_no_number_of_it(half):
    _, _, file, records, _ = half
    text = file.with_suffix(".md").read_text()
    table = text[text.index("| case | predicted |") :].split("\n\n")[0]
    assert table.splitlines()[2:] and all(f" {predictions.NOT_YET} " in line for line in table.splitlines()[2:])
    assert tables.gpu_results(records) == []


def test_the_tables_find_what_the_phases_write(half):
    """The lines of this run as if a GPU had written them: the predictions of this half have their values."""
    number, _, _, records, _ = half
    lines = [r | {"gpu_us": r["wall_us"]} if "wall_us" in r else r for r in records]
    found = {row["key"] for group, row in predictions.rows() if predictions.measured(group, row, lines) is not None}
    wanted = {
        1: {
            "time forward C3 1 resnet_cuda, bfloat16",
            "time backward C5 8 resnet_cuda, bfloat16",
            "time backward C4 8 resnet_cuda, float32, TF32 on",
            "ratio forward torchvision, float32, TF32 off",
            "ratio backward torchvision, float32, TF32 on",
            "time forward C4 8 torchvision, float32, TF32 off",
            "roofline forward",
            "accuracy C4",
            "frozen_bn in place stem, batch 8",
        },
        2: {"time forward C4 2 resnet_cuda, bfloat16", "time backward C4 8 resnet_cuda, bfloat16", "roofline backward"},
    }[number]
    assert wanted <= found, wanted - found


def test_the_tests_are_collected(half):
    number, output, _, records, _ = half
    suites = [record for record in records if record["kind"] == "tests"]
    assert len(suites) == number - 1
    if suites:
        assert suites[0]["collected_only"]
        text = (output / "tests.log").read_text()
        assert "test_streams" in text and "test_large" in text and "test_deform_conv_values" in text


def test_the_peers_and_host_times_by_name(gpu_run, tmp_path):
    """In neither half."""
    result = gpu_run(ROOT, tmp_path, "--no-build", "--only", "host,peers", PYTHONPATH=PATHS)
    assert result.returncode == 0
    (file,) = tmp_path.glob("*.jsonl")
    records = read(file)
    measured = {record["candidate"] for record in records if record["kind"] == "time"}
    assert {"torchvision, float32, TF32 off", "torchvision, float32, TF32 on"} <= measured
    host = {record["item"]: record["cpu_us"] for record in records if record["kind"] == "host time"}
    assert len(host) == 18 and min(host.values()) > 0


HANGS = "import time\ndef run(context):\n    context.write('before', item='hanging')\n    time.sleep(600)\n"
FAILS = "def run(context):\n    raise ValueError('planted')\n"
DIES = "import os\ndef run(context):\n    os.abort()\n"
WRITES = "import os\ndef run(context):\n    context.write('after', process=os.getpid())\n"


def planned(tmp_path, monkeypatch, order, **options):
    """Steps that are planted modules, and where they run."""
    for name, text in {"hangs": HANGS, "fails": FAILS, "dies": DIES, "writes": WRITES}.items():
        (tmp_path / f"planted_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PACKAGE), str(ROOT)]))
    return [
        Step(f"{index} {name}", name, 4 if name == "hangs" else 60, f"planted_{name}:run", "0", **options)
        for index, name in enumerate(order)
    ]


def ran(folder, chosen, total):
    """Outcomes and records of steps that run in ``folder``."""
    results = Results(folder / "results.jsonl", device="cpu", quick=True)
    return run(chosen, Places(folder, folder, None, "cpu", True), results, total), read(results.path)


def test_a_phase_that_hangs_fails_or_dies_stops_no_other(tmp_path, monkeypatch):
    order = ["writes", "writes", "hangs", "writes", "fails", "writes", "dies", "writes"]
    outcomes, records = ran(tmp_path, planned(tmp_path, monkeypatch, order), total=150)
    expected = {"writes": "ok", "hangs": "timeout", "fails": "error", "dies": "error"}
    assert [outcome.status for _, outcome in outcomes] == [expected[name] for name in order]
    by_step = {record["step"]: record for record in records if record["kind"] == "step"}
    assert 7 <= by_step["2 hangs"]["seconds"] < 12  # 4 s, and 4 s that others have left
    assert by_step["4 fails"]["error"] == "ValueError: planted"
    assert "status -6; Fatal Python error: Aborted" in by_step["6 dies"]["error"]
    assert latest(records, kind="before")["item"] == "hanging"  # what it had found before it hung is there
    processes = [record["process"] for record in records if record["kind"] == "after"]
    assert processes[0] == processes[1]  # one process as long as all goes well
    assert len(set(processes[1:])) == 4  # and a new one after each trouble
    assert len({record["run"] for record in records if record["kind"] == "after"}) == 4


def test_what_is_printed_at_start_is_no_answer(tmp_path, monkeypatch):
    steps = planned(tmp_path, monkeypatch, ["writes"])
    (tmp_path / "sitecustomize.py").write_text("print('hello')\n")
    outcomes, _ = ran(tmp_path, steps, total=150)
    assert [outcome.status for _, outcome in outcomes] == ["ok"]


def test_an_exact_step_takes_no_more_than_its_time(tmp_path, monkeypatch):
    outcomes, _ = ran(tmp_path, planned(tmp_path, monkeypatch, ["writes", "hangs"], exact=True), total=150)
    assert outcomes[1][1].status == "timeout"
    assert 4 <= outcomes[1][1].seconds < 6


def test_no_step_begins_without_time(tmp_path):
    begin = time.monotonic()
    outcomes, records = ran(tmp_path, [Step("1", "", 60, "nothing:run", "0")], total=5)
    assert [outcome.status for _, outcome in outcomes] == ["skipped"]
    assert time.monotonic() - begin < 2
    assert latest(records, kind="step")["error"] == "no time left"


def test_a_command_is_cut_with_its_children(tmp_path):
    log = tmp_path / "log"
    outcome = run_command(["bash", "-c", "sleep 300 & echo $!; wait"], 1, log, os.environ, tmp_path)
    assert outcome.status == "timeout"
    child = log.read_text().splitlines()[-1]
    time.sleep(0.2)
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_commands_at_the_same_time_have_one_deadline(tmp_path):
    commands = [(["bash", "-c", text], tmp_path / f"{i}") for i, text in enumerate(("sleep 300", "exit 4", "sleep 1"))]
    begin = time.monotonic()
    outcomes = run_commands(commands, 3, os.environ, tmp_path)
    assert [outcome.status for outcome in outcomes] == ["timeout", "error", "ok"]
    assert time.monotonic() - begin < 5


def test_wrong_names_are_refused(gpu_run, tmp_path):
    result = gpu_run(ROOT, tmp_path, "--only", "ours,nine", PYTHONPATH=PATHS)
    assert result.returncode == 2
    assert "no step 'nine'; allowed are build, libraries, start" in result.stderr


def test_the_total_ends_everything(gpu_run, tmp_path):
    """Behind it, whatever happens: the tables are made, and nothing goes on."""
    begin = time.monotonic()
    result = gpu_run(ROOT, tmp_path, "--no-build", "--total", "14", PYTHONPATH=PATHS)
    assert time.monotonic() - begin < 30
    assert result.returncode != 0
    (file,) = tmp_path.glob("*.jsonl")
    assert file.with_suffix(".md").exists()
    assert any(record.get("error") == "no time left" or record["kind"] == "ended" for record in read(file))


def test_the_halves_fit_what_one_gets():
    totals = [steps.total_seconds(steps.choose(skip=["libraries"], half=half)) for half in steps.HALVES]
    assert max(totals) < COMMAND_SECONDS
    assert sum(totals) + 120 < SESSION_SECONDS  # the machine has to start, too


def test_every_step_can_be_run():
    names = [step.name for step in steps.STEPS]
    assert len(set(names)) == len(names)
    for step in steps.STEPS:
        assert callable(steps.load(step.run))
    timed = {step.name for step in steps.STEPS if step.run == "benchmarks.gpu.cells:run"}
    assert timed | {"memory"} == set(CELLS)


def test_what_is_vital_comes_first_and_is_left_out_by_name_only():
    for half in steps.HALVES:
        vital = [step.vital for step in steps.choose(half=half)]
        assert vital == sorted(vital, reverse=True) and sum(vital) == 3
    assert [step.name for step in steps.choose(only=["ratios"])] == ["libraries", "start", "ratios"]
    assert [step.name for step in steps.choose(only=["ratios"], skip=["start", "libraries"])] == ["ratios"]
