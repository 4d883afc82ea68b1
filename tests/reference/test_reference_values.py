"""The reference deformable convolution against numbers worked out by hand and identities.

gradcheck of both implementations: ops/test_deform_conv_values.py.
"""

import pytest
import torch
import torch.nn.functional as F
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME
from helpers.problems import deform_arguments, forward_arguments, run

from resnet_cuda.reference import deform_conv2d


def counting_image(dtype=torch.float64):
    """[[0, 1, 2, 3, 4], [5, …], …, [20, …, 24]]"""
    return torch.arange(25, dtype=dtype).reshape(1, 1, 5, 5)


def test_half_pixel_offset_on_the_counting_image():
    # Inside, a sample is the mean of four pixels: p + (0 + 1 + 5 + 6) / 4. In the last column two of the four are
    # outside the image and count as 0, in the last row likewise, in the corner three.
    output = deform_conv2d(counting_image(), torch.full((1, 2, 5, 5), 0.5).double(), torch.ones(1, 1, 1, 1).double())
    expected = [
        [3.0, 4.0, 5.0, 6.0, 3.25],
        [8.0, 9.0, 10.0, 11.0, 5.75],
        [13.0, 14.0, 15.0, 16.0, 8.25],
        [18.0, 19.0, 20.0, 21.0, 10.75],
        [10.25, 10.75, 11.25, 11.75, 6.0],
    ]
    assert output[0, 0].tolist() == expected


def test_half_pixel_offset_with_a_box_kernel():
    # Sums of 3x3 windows of the table above.
    output = deform_conv2d(counting_image(), torch.full((1, 18, 3, 3), 0.5).double(), torch.ones(1, 1, 3, 3).double())
    assert output[0, 0].tolist() == [[81.0, 90.0, 80.25], [126.0, 135.0, 117.75], [131.25, 138.75, 120.0]]


def test_offsets_are_dy_dx_interleaved_per_tap():
    # Kernel 1x2 on one pixel: the first tap goes one row down, the second one column to the right of its place.
    image = counting_image()[..., :3, :3].contiguous()  # [[0, 1, 2], [5, 6, 7], [10, 11, 12]]
    offset = torch.tensor([1.0, 0.0, 0.0, 1.0]).double().reshape(1, 4, 1, 1).expand(1, 4, 3, 2).contiguous()
    weight = torch.tensor([1.0, 100.0]).double().reshape(1, 1, 1, 2)
    output = deform_conv2d(image, offset, weight)
    # [y, x]: image[y + 1, x] + 100 * image[y, x + 2]
    assert output[0, 0].tolist() == [[205.0, 6.0], [710.0, 11.0], [1200.0, 0.0]]


def test_each_offset_group_moves_its_own_channels():
    image = torch.stack([counting_image()[0, 0], counting_image()[0, 0] * 100])[None]  # channels 0 and 1
    offset = torch.zeros(1, 4, 5, 5, dtype=torch.float64)
    offset[:, 3] = 1.0  # group 1 reads one column to the right
    mask = torch.ones(1, 2, 5, 5, dtype=torch.float64)
    mask[:, 0] = 2.0  # group 0 counts twice
    output = deform_conv2d(image, offset, torch.ones(1, 2, 1, 1).double(), mask=mask)
    assert output[0, 0, 0].tolist() == [100.0, 202.0, 304.0, 406.0, 8.0]


def test_worked_gradients_of_one_sample():
    """One tap in the 2x2 image [[1, 2], [4, 8]] at (y, x) = (0.25, 0.5), weight 3, mask 0.5, bias 7.

    sample = 0.75 * (0.5 * 1 + 0.5 * 2) + 0.25 * (0.5 * 4 + 0.5 * 8) = 1.125 + 1.5 = 2.625
    d sample / dy = row 1 - row 0 = 6 - 1.5 = 4.5; d sample / dx = 0.75 * (2 - 1) + 0.25 * (8 - 4) = 1.75
    """
    image = torch.tensor([[1.0, 2.0], [4.0, 8.0]], dtype=torch.float64).reshape(1, 1, 2, 2)
    offset = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    offset[0, :, 0, 0] = torch.tensor([0.25, 0.5])
    mask = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    weight = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    bias = torch.full((1,), 7.0, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (image, offset, weight, bias, mask)]
    output = deform_conv2d(image, offset, weight, bias, mask=mask)
    assert output[0, 0, 0, 0].item() == 2.625 * 3 * 0.5 + 7
    grad_image, grad_offset, grad_weight, grad_bias, grad_mask = torch.autograd.grad(output[0, 0, 0, 0] * 2, leaves)
    assert grad_image[0, 0].tolist() == [[2 * 1.5 * 0.375, 2 * 1.5 * 0.375], [2 * 1.5 * 0.125, 2 * 1.5 * 0.125]]
    assert grad_offset[0, :, 0, 0].tolist() == [2 * 1.5 * 4.5, 2 * 1.5 * 1.75]
    assert grad_offset.count_nonzero() == 2
    assert grad_weight.item() == 2 * 0.5 * 2.625
    assert grad_bias.item() == 2
    assert grad_mask[0, 0].tolist() == [[2 * 3 * 2.625, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_zero_offset_and_mask_one_are_conv2d(case):
    arguments = deform_arguments(case, torch.float64)
    arguments["offset"].zero_()
    if case.mask:
        arguments["mask"].fill_(1.0)
    got = run(deform_conv2d, arguments, **case.geometry)
    plain = {name: value for name, value in arguments.items() if name not in ("offset", "mask")}
    expected = run(F.conv2d, plain, **case.geometry, groups=case.groups)
    torch.testing.assert_close(got.output, expected.output)
    torch.testing.assert_close({name: got.gradients[name] for name in expected.gradients}, expected.gradients)


@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, -1), (-2, 3), (0, 5), (40, 0)])
def test_whole_offsets_shift_the_image(dy, dx):
    image = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    offset = torch.tensor([dy, dx]).double().repeat(9).reshape(1, 18, 1, 1).expand(2, 18, 6, 7)
    output = deform_conv2d(image, offset, weight, padding=1)
    # Room on all sides, so that the shifted reads of the padding still find zeros.
    margin = 48
    wide = F.conv2d(F.pad(image, [margin] * 4), weight, padding=1)
    expected = wide[..., margin + dy : margin + dy + 6, margin + dx : margin + dx + 7]
    torch.testing.assert_close(output, expected)
    assert (dy == 40) == (not output.any())


def test_mask_and_weight_scale_alike():
    case = DEFORM_CASES_BY_NAME["v1_no_bias"]
    arguments = forward_arguments(case, torch.float64)
    half = deform_conv2d(**arguments | {"mask": torch.full((2, 9, 7, 6), 0.5).double()}, **case.geometry)
    torch.testing.assert_close(half * 2, deform_conv2d(**arguments, **case.geometry))
