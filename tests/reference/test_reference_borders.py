"""Where the reference samples at, beside and far beyond the border, and what a position that is no number does.

One tap, so that each number can be redone on paper: image [[1, 2, 4], [8, 16, 32]], H = 2, W = 3.
"""

import pytest
import torch

from resnet_cuda.reference import deform_conv2d

IMAGE = ((1.0, 2.0, 4.0), (8.0, 16.0, 32.0))
INFINITY, NAN = float("inf"), float("nan")


def sample(y, x, image=IMAGE, dtype=torch.float64):
    """Value at (y, x), derivatives for y, x, mask and image (as rows), by a 1x1 kernel at output pixel (0, 0)."""
    image = torch.tensor(image, dtype=dtype)[None, None].requires_grad_()
    offset = torch.zeros(1, 2, *image.shape[2:], dtype=dtype)
    offset[0, :, 0, 0] = torch.tensor([y, x], dtype=dtype)
    mask = torch.ones(1, 1, *image.shape[2:], dtype=dtype)
    offset.requires_grad_(), mask.requires_grad_()
    output = deform_conv2d(image, offset, torch.ones(1, 1, 1, 1, dtype=dtype), mask=mask)[0, 0, 0, 0]
    grad_image, grad_offset, grad_mask = torch.autograd.grad(output, (image, offset, mask))
    dy, dx = grad_offset[0, :, 0, 0].tolist()
    return output.item(), dy, dx, grad_mask[0, 0, 0, 0].item(), grad_image[0, 0].tolist()


NOTHING = [[0.0] * 3] * 2
POSITIONS = [
    # y, x: value, d/dy, d/dx (both right-hand), d/d image
    ((0, 0), 1.0, 7.0, 1.0, [[1, 0, 0], [0, 0, 0]]),
    ((1, 1), 16.0, -16.0, 16.0, [[0, 0, 0], [0, 1, 0]]),
    ((0.5, 1.5), 13.5, 21.0, 9.0, [[0, 0.25, 0.25], [0, 0.25, 0.25]]),
    # the last row and column: beyond them the values fall to 0
    ((1, 2), 32.0, -32.0, -32.0, [[0, 0, 0], [0, 0, 1]]),
    ((1.75, 0), 2.0, -8.0, 2.0, [[0, 0, 0], [0.25, 0, 0]]),
    # the first half pixel outside
    ((-0.25, 0), 0.75, 1.0, 0.75, [[0.75, 0, 0], [0, 0, 0]]),
    ((0, -0.75), 0.25, 1.75, 1.0, [[0.25, 0, 0], [0, 0, 0]]),
    # at exactly -1 the value is 0 and the right-hand derivative is the border pixel
    ((-1, 0), 0.0, 1.0, 0.0, NOTHING),
    ((-1, 1.5), 0.0, 3.0, 0.0, NOTHING),
    ((0, -1), 0.0, 0.0, 1.0, NOTHING),
    ((1, -1), 0.0, 0.0, 8.0, NOTHING),
    ((-1, -1), 0.0, 0.0, 0.0, NOTHING),
    ((-1, -0.5), 0.0, 0.5, 0.0, NOTHING),
    # at exactly H and W, and past -1, all is outside
    ((2, 0), 0.0, 0.0, 0.0, NOTHING),
    ((0, 3), 0.0, 0.0, 0.0, NOTHING),
    ((-1, 3), 0.0, 0.0, 0.0, NOTHING),
    ((2, -1), 0.0, 0.0, 0.0, NOTHING),
    ((-1.25, 0), 0.0, 0.0, 0.0, NOTHING),
    ((0, -1.25), 0.0, 0.0, 0.0, NOTHING),
    # far outside
    ((-7, 1), 0.0, 0.0, 0.0, NOTHING),
    ((1e30, 1), 0.0, 0.0, 0.0, NOTHING),
    ((0, -1e30), 0.0, 0.0, 0.0, NOTHING),
    ((INFINITY, 0), 0.0, 0.0, 0.0, NOTHING),
    ((0, -INFINITY), 0.0, 0.0, 0.0, NOTHING),
    ((-INFINITY, INFINITY), 0.0, 0.0, 0.0, NOTHING),
]


@pytest.mark.parametrize(("position", "value", "dy", "dx", "image"), POSITIONS, ids=lambda value: str(value))
def test_value_and_right_hand_derivatives(position, value, dy, dx, image, dtype):
    # Every number in the table is exact in every dtype.
    assert sample(*position, dtype=dtype) == (value, dy, dx, value, [[float(v) for v in row] for row in image])


@pytest.mark.parametrize("position", [(NAN, 0), (0, NAN), (NAN, NAN), (NAN, INFINITY), (NAN, -7)], ids=str)
def test_nan_position_gives_nan_there_and_reads_nothing(position):
    value, dy, dx, mask, image = sample(*position)
    assert all(number != number for number in (value, dy, dx, mask))
    assert image == NOTHING


def test_float32_offsets_beside_16_bit_keep_their_digits():
    image = torch.tensor([0.0, 256.0], dtype=torch.bfloat16).reshape(1, 1, 1, 2)
    offset = torch.zeros(1, 2, 1, 2)
    offset[0, 1, 0, 0] = 1 / 256 + 1 / 2  # not a bfloat16
    output = deform_conv2d(image, offset, torch.ones(1, 1, 1, 1, dtype=torch.bfloat16))
    assert output[0, 0, 0, 0].item() == 129.0
