"""The reference FrozenBatchNorm + residual + ReLU against hand values and PyTorch's batch norm.

gradcheck and rounding, of both implementations: ops/test_frozen_bn_values.py.
"""

import pytest
import torch
import torch.nn.functional as F

from resnet_cuda.reference import frozen_bn_relu

INPUT = torch.tensor([1.0, -1.0, 2.0, -4.0]).reshape(1, 2, 1, 2)
SCALE = torch.tensor([2.0, -0.5])
SHIFT = torch.tensor([1.0, 0.5])
RESIDUAL = torch.tensor([-4.0, 0.5, 0.5, -3.0]).reshape(1, 2, 1, 2)


@pytest.mark.parametrize(
    ("residual", "relu", "expected"),
    [
        (None, False, [3.0, -1.0, -0.5, 2.5]),
        (None, True, [3.0, 0.0, 0.0, 2.5]),
        (RESIDUAL, False, [-1.0, -0.5, 0.0, -0.5]),
        (RESIDUAL, True, [0.0, 0.0, 0.0, 0.0]),
        (-RESIDUAL, True, [7.0, 0.0, 0.0, 5.5]),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_hand_values(residual, relu, expected, inplace):
    input = INPUT.clone()
    output = frozen_bn_relu(input, SCALE, SHIFT, residual, relu=relu, inplace=inplace)
    assert output.flatten().tolist() == expected
    assert (output is input) == inplace
    assert inplace or torch.equal(input, INPUT)


def test_defaults_are_relu_and_out_of_place():
    input = INPUT.clone()
    output = frozen_bn_relu(input, SCALE, SHIFT)
    assert output.flatten().tolist() == [3.0, 0.0, 0.0, 2.5]
    assert torch.equal(input, INPUT)


def test_gradients_by_hand():
    input = torch.tensor([1.0, -1.0, 1.0, -4.0]).reshape(1, 2, 1, 2).requires_grad_()
    residual = torch.tensor([0.0, 0.5, 0.0, 0.0]).reshape(1, 2, 1, 2).requires_grad_()
    output = frozen_bn_relu(input, SCALE, SHIFT, residual)
    assert output.flatten().tolist() == [3.0, 0.0, 0.0, 2.5]  # the third is exactly 0 before the ReLU too
    output.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 2, 1, 2))
    assert input.grad.flatten().tolist() == [2.0, 0.0, 0.0, -500.0]
    assert residual.grad.flatten().tolist() == [1.0, 0.0, 0.0, 1000.0]


def test_is_batch_norm_in_eval_mode():
    input = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    weight, bias, mean = torch.randn(3, 5, dtype=torch.float64)
    variance = torch.rand(5, dtype=torch.float64) + 0.5
    scale = weight / (variance + 1e-5).sqrt()
    expected = F.batch_norm(input, mean, variance, weight, bias, eps=1e-5)
    torch.testing.assert_close(frozen_bn_relu(input, scale, bias - mean * scale, relu=False), expected)
    torch.testing.assert_close(frozen_bn_relu(input, scale, bias - mean * scale), expected.relu())
