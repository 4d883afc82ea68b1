"""The reference FrozenBatchNorm + residual + ReLU against hand values, PyTorch's batch norm and gradcheck."""

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
    # Outputs before the ReLU: 3, 0.5 - 1 = -0.5 … chosen so that one is exactly 0: the gradient there is 0.
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


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
def test_gradcheck(relu, with_residual):
    def away_from_zero(shape):
        return torch.randn(shape, dtype=torch.float64).sign() * (2 + torch.rand(shape, dtype=torch.float64))

    input = away_from_zero((2, 3, 4, 2)).requires_grad_()
    residual = (0.1 * torch.randn(2, 3, 4, 2, dtype=torch.float64)).requires_grad_() if with_residual else None
    scale, shift = torch.tensor([1.5, -1.0, 2.0]).double(), torch.tensor([0.1, -0.2, 0.3]).double()
    assert torch.autograd.gradcheck(lambda a, b: frozen_bn_relu(a, scale, shift, b, relu=relu), (input, residual))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_input_is_rounded_once(dtype):
    """scale, shift and the sum with the residual stay float32: rounding between would lose the small part."""
    one = torch.ones(1, 1, 1, 1, dtype=dtype)
    scale = torch.tensor([1 + 2.0**-12])  # 1 in both 16-bit types
    shift = torch.tensor([-1.0])
    output = frozen_bn_relu(one, scale, shift)
    assert output.dtype == dtype
    assert output.item() == 2.0**-12
    residual = torch.full((1, 1, 1, 1), 2.0**-12, dtype=dtype)
    # 1 + 2^-12 would be rounded to 1 if the affine part were rounded before the residual is subtracted.
    assert frozen_bn_relu(one, scale, torch.tensor([0.0]), -one, relu=False).item() == 2.0**-12
    assert frozen_bn_relu(one, torch.ones(1), torch.tensor([-1.0]), residual).item() == 2.0**-12


def test_relu_keeps_nan():
    input = torch.tensor([float("nan"), 1.0, -1.0, float("inf")]).reshape(1, 1, 2, 2)
    output = frozen_bn_relu(input, torch.ones(1), torch.zeros(1)).flatten().tolist()
    assert output[0] != output[0]
    assert output[1:] == [1.0, 0.0, float("inf")]
