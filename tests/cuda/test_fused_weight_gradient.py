"""The fused gradient for the weight on a GPU of capability 9.0: as near to float64 as the one from columns, the same
bits twice, and the other gradients as they were."""

import pytest
import torch
from helpers.compare import assert_bitwise_equal
from helpers.gpu import NEEDS_GPU, STAGES, layer_arguments

from resnet_cuda import reference

pytestmark = NEEDS_GPU
VARIABLE = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT"
KERNEL = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT_KERNEL"
GEOMETRY = (1, 1, 1, 1, 1, 1)
WEIGHT = 1  # among the gradients


@pytest.mark.parametrize("kernel", ["roles", "uniform"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous gradient"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_stage(monkeypatch, stage, dtype, channels_last, kernel):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    arguments = layer_arguments(STAGES[stage], 2, dtype, "cuda")
    if not channels_last:
        arguments["grad"] = arguments["grad"].contiguous()
    tensors = [arguments[name] for name in ("grad", "input", "weight", "offset", "mask")]

    def gradients():
        return torch.ops.resnet_cuda.deform_conv2d_backward(*tensors, *GEOMETRY, True, True, True, True, True)

    columns = gradients()
    monkeypatch.setenv(VARIABLE, "require")
    monkeypatch.setenv(KERNEL, kernel)
    fused, again = gradients(), gradients()
    for index, name in enumerate(("input", "weight", "offset", "mask", "bias")):
        assert_bitwise_equal(fused[index], again[index] if index == WEIGHT else columns[index], f"gradient for {name}")
    doubles = {name: value.double() for name, value in arguments.items()}
    grad, weight = doubles.pop("grad"), doubles["weight"].requires_grad_()
    reference.deform_conv2d(**doubles, stride=(1, 1), padding=(1, 1), dilation=(1, 1)).backward(grad)
    own, others = ((one[WEIGHT].double() - weight.grad).square().mean().sqrt().item() for one in (fused, columns))
    assert own <= 1.02 * others
