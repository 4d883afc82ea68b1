"""The fused forward on a GPU of capability 9.0: as near to float64 as the one with columns, and the same bits twice."""

import pytest
import torch
from helpers.compare import assert_bitwise_equal
from helpers.gpu import NEEDS_GPU, STAGES, layer_arguments

from resnet_cuda import ops, reference

pytestmark = NEEDS_GPU
VARIABLE = "RESNET_CUDA_FUSED_FORWARD"
TILES = "RESNET_CUDA_FUSED_TILES"


@pytest.mark.parametrize(
    "tiles", ["", *(tiles + kind for tiles in ("128x256x1", "128x128x1", "64x128x1", "64x128x3") for kind in ("", "u"))]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_stage(monkeypatch, stage, dtype, tiles):
    """float32 in TF32 both times. ``tiles``: empty for those that the forward chooses."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    arguments = {k: v for k, v in layer_arguments(STAGES[stage], 2, dtype, "cuda").items() if k != "grad"}
    geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    columns = ops.deform_conv2d(**arguments, **geometry)
    monkeypatch.setenv(VARIABLE, "require-tf32")
    monkeypatch.setenv(TILES, tiles)
    fused, again = (ops.deform_conv2d(**arguments, **geometry) for _ in range(2))
    assert_bitwise_equal(fused, again, "output")
    doubles = {name: value if value is None else value.double() for name, value in arguments.items()}
    exact = reference.deform_conv2d(**doubles, **geometry)
    own, others = ((found.double() - exact).square().mean().sqrt().item() for found in (fused, columns))
    assert own <= 1.02 * others
