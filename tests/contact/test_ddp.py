"""Two processes with gloo: both compute the same function, whoever wrote the buffers, and the right one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest
import torch
from helpers.ddp_ranks import SCENARIOS, level_sums
from helpers.networks import frozen_norms, torchvision_style
from helpers.processes import run_python

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="this torch has no gloo"
)


def run(scenario: str, folder: Path) -> list[list[float]]:
    """What each of the two ranks printed."""
    with ThreadPoolExecutor(2) as pool:
        ranks = [
            pool.submit(
                run_python, "-m", "helpers.ddp_ranks", scenario, rank, folder / "meeting", RESNET_CUDA_BACKEND="native"
            )
            for rank in (0, 1)
        ]
        for rank in as_completed(ranks):  # the one that fails first has the reason
            assert rank.result().returncode == 0, rank.result().stderr[-3000:]
    return [json.loads(rank.result().stdout.splitlines()[-1]) for rank in ranks]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_ranks_compute_the_same_function(scenario, tmp_path, native):
    first, second = run(scenario, tmp_path)
    assert any(first)
    assert second == pytest.approx(first, rel=1e-5)


def test_what_is_broadcast_is_what_is_computed_with(tmp_path, native):
    """Not only the same on both ranks, but the function of rank 0's new statistics."""
    first, _ = run("buffers_broadcast_in_forward", tmp_path)
    network = torchvision_style()
    for norm in frozen_norms(network).values():
        norm.running_mean.add_(0.25)
    assert first == pytest.approx(level_sums(network), rel=1e-4)
