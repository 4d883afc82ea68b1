"""The comparison of deployed backbones: which candidates are there, and that a wrong one is found."""

from __future__ import annotations

import pytest
import torch

from benchmarks import bench_inference, onnx_runtimes
from benchmarks.measure import compare
from benchmarks.results import OURS, Settings
from resnet_cuda.inference.convolution import FoldedConv2d


def settings(dtype=torch.float32):
    return Settings(torch.device("cpu"), dtype, True, 1, 1.0, True)


@pytest.fixture(scope="module")
def problem():
    return bench_inference.make_problem((1, 3, 64, 96), True, settings())


def eager_only(monkeypatch, *more):
    names = [name for name in bench_inference.CANDIDATES if "compile" not in name and "freezing" not in name]
    kept = {name: bench_inference.CANDIDATES[name] for name in names}
    monkeypatch.setattr(bench_inference, "CANDIDATES", kept)
    return names


def test_every_candidate_agrees_or_says_why_it_is_not_there(monkeypatch, native, problem):
    names = eager_only(monkeypatch)
    calls, notes, compile_seconds = bench_inference.prepare(problem)
    assert not compile_seconds
    assert list(calls)[:2] == [OURS, f"{OURS}, eager"]
    assert sorted([*calls, *notes]) == sorted(names)
    assert all(reason.startswith("No module named") for reason in notes.values()), notes
    assert all(len(call()) == 5 for call in calls.values())


def test_a_candidate_that_computes_something_else_is_an_error(monkeypatch, native, problem):
    def wrong(problem):
        return lambda: {name: value * 1.01 for name, value in problem.own(problem.image).items()}

    monkeypatch.setattr(bench_inference, "CANDIDATES", {"wrong": wrong})
    with pytest.raises(AssertionError, match="wrong differs by"):
        bench_inference.prepare(problem)


def test_ours_is_the_folded_network_and_the_problem_has_statistics(native, problem):
    model, image = problem.given(problem.own)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert model is not problem.own
    optimized = bench_inference.optimize_for_inference(model)
    assert sum(isinstance(it, FoldedConv2d) for it in optimized.modules()) > 50
    assert problem.own.body.bn1.running_var.std() > 0.1


def test_cases_of_a_run():
    assert len(list(bench_inference.run(settings()))) == 4
    assert len(list(bench_inference.run(settings(torch.bfloat16)))) == 2


def test_runtimes_refuse_what_they_do_not_do(problem):
    pytest.importorskip("onnxruntime")
    with pytest.raises(onnx_runtimes.NotThereError, match="bfloat16"):
        onnx_runtimes.onnx_runtime(problem.own, problem.image, settings(torch.bfloat16))


def test_turns_rotate():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    compare(calls, torch.device("cpu"), 3, 10.0, rotate=True)
    turns = ["".join(order[start : start + 3]) for start in range(len(order) - 9, len(order), 3)]
    assert sorted(turns) == ["abc", "bca", "cab"]
