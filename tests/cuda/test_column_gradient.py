"""The fused columns' gradient on a GPU of capability 9.0: as near to float64 as without it, and the same bits twice."""

import pytest
import torch
from helpers.gpu import NEEDS_GPU, PADDED, STAGES, assert_runs_equal, deform_run, layer_arguments
from helpers.problems import cast, run

from resnet_cuda import reference

pytestmark = NEEDS_GPU
VARIABLE = "RESNET_CUDA_FUSED_COLUMN_GRADIENT"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_stage(monkeypatch, stage, dtype):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    arguments = layer_arguments(STAGES[stage], 2, dtype, "cuda")
    monkeypatch.setenv(VARIABLE, "0")
    plain = deform_run(arguments)
    monkeypatch.setenv(VARIABLE, "require")
    fused, again = (deform_run(arguments) for _ in range(2))
    assert_runs_equal(fused, again)
    exact = run(reference.deform_conv2d, cast(arguments, torch.float64), **PADDED)
    for name, gradient in exact.gradients.items():
        own, other = (
            (found.gradients[name].double() - gradient).square().mean().sqrt().item() for found in (fused, plain)
        )
        assert own <= 1.02 * other, f"gradient for {name} is off by {own}, without the fused kernel by {other}"
