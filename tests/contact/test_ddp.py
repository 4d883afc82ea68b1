"""Two processes with gloo: both compute the same function, whoever wrote the buffers, and the right one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.networks import torchvision_style

from resnet_cuda.layers import FrozenBatchNorm2d

SCRIPT = Path(__file__).with_name("ddp_ranks.py")

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="this torch has no gloo"
)


def run(scenario: str, folder: Path) -> list[list[float]]:
    """What each of the two ranks printed."""
    # The package that these tests test, wherever the child starts.
    import resnet_cuda

    place = str(Path(resnet_cuda.__file__).parents[1])
    environment = os.environ | {"RESNET_CUDA_BACKEND": "native", "PYTHONPATH": place}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), scenario, str(rank), str(folder / "meeting")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        for rank in (0, 1)
    ]
    try:
        results = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, (_, errors) in zip(ranks, results, strict=True):
        assert rank.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in results]


@pytest.mark.parametrize(
    "scenario",
    ["buffers_broadcast_in_forward", "written_by_collectives", "checkpointed_gradients", "average_of_weights"],
)
def test_both_ranks_compute_the_same_function(scenario, tmp_path, native):
    first, second = run(scenario, tmp_path)
    assert any(first)
    assert second == pytest.approx(first, rel=1e-5)


def test_what_is_broadcast_is_what_is_computed_with(tmp_path, native):
    """Not only the same on both ranks, but the function of rank 0's new statistics."""
    first, _ = run("buffers_broadcast_in_forward", tmp_path)
    network = torchvision_style()
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.add_(0.25)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = [float(level.double().sum()) for level in network(x).values()]
    assert first == pytest.approx(expected, rel=1e-4)
