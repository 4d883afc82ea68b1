"""Positions at, beside and far beyond the border, and positions that are no numbers: on both implementations."""

import pytest
import torch
from helpers.cases import DEFORM_CASES_BY_NAME, DeformCase
from helpers.compare import assert_bitwise_equal
from helpers.problems import assert_deform_run_close, deform_arguments, run

from resnet_cuda import ops

INFINITY, NAN = float("inf"), float("nan")
CASE = DeformCase("borders", batch=1, channels=3, out_channels=5, size=(6, 7), kernel=(1, 1), padding=(0, 0))
HEIGHT, WIDTH = CASE.size


def positioned(y, x, dtype, device, case=CASE):
    """Arguments of a 1x1 case in which every output pixel reads at ``(y, x)``, which need not be near it."""
    arguments = deform_arguments(case, dtype, device)
    # In float64, where subtracting the pixel's own place is exact; float32 holds these small numbers too.
    rows = torch.arange(case.size[0], dtype=torch.float64).reshape(1, -1, 1)
    columns = torch.arange(case.size[1], dtype=torch.float64).reshape(1, 1, -1)
    offset = torch.stack((y - rows.expand(1, *case.size), x - columns.expand(1, *case.size)), dim=1)
    return arguments | {"offset": offset.to(device, dtype)}


# Of (y, x), both ways round, and some in the corner.
EDGES = [-2.0, -1.5, -1.25, -1.0, -0.75, -0.5, 0.0]
ON_ROWS = [(y, 2.5) for y in EDGES] + [(HEIGHT + y, 2.5) for y in EDGES] + [(HEIGHT + 1.0, 2.5)]
ON_COLUMNS = [(2.5, x) for x in EDGES] + [(2.5, WIDTH + x) for x in EDGES] + [(2.5, WIDTH + 1.0)]
CORNERS = [(-1.0, -1.0), (-1.0, WIDTH), (HEIGHT, -1.0), (HEIGHT, WIDTH), (-0.5, -0.5), (HEIGHT - 0.5, WIDTH - 0.5)]


def is_outside(y, x):
    return not (-1 < y < HEIGHT and -1 < x < WIDTH)


@pytest.mark.parametrize(("y", "x"), ON_ROWS + ON_COLUMNS + CORNERS)
def test_values_and_gradients_at_border_positions(y, x, dtype, device, native):
    """Values and gradients; outside all are zero but the right-hand derivative at exactly -1."""
    arguments = positioned(y, x, dtype, device)
    got = run(ops.deform_conv2d, arguments, **CASE.geometry)
    zero = [name for name in ("input", "weight", "mask") if is_outside(y, x)]
    on_the_edge = (y == -1 and -1 < x < WIDTH) or (x == -1 and -1 < y < HEIGHT)
    if is_outside(y, x) and not on_the_edge:
        zero.append("offset")
    assert_deform_run_close(got, arguments, CASE, trivial=zero)


@pytest.mark.parametrize(("y", "x"), [(-1.0, 3.0), (4.0, -1.0)])
def test_the_derivative_at_exactly_minus_one_is_the_right_hand_one(y, x, dtype, device, backend):
    """The value is 0 there and grows with the border pixel as its slope: the definition, not the reference."""
    arguments = positioned(y, x, dtype, device)
    for name in ("weight", "mask", "grad"):
        arguments[name].fill_(1.0)
    got = run(ops.deform_conv2d, arguments, **CASE.geometry).gradients["offset"].cpu().double()
    slope = CASE.out_channels * arguments["input"].double()[0, :, max(int(y), 0), max(int(x), 0)].sum().item()
    expected = torch.tensor([slope, 0.0] if y == -1 else [0.0, slope]).double().reshape(1, 2, 1, 1).expand_as(got)
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=0)


def test_zero_offsets_with_padding_equal_the_reference(dtype, device, native):
    """Each training run starts here: all border taps lie at exactly -1, H or W."""
    case = DEFORM_CASES_BY_NAME["offset_groups_2"]
    arguments = deform_arguments(case, dtype, device)
    arguments["offset"].zero_()
    assert_deform_run_close(run(ops.deform_conv2d, arguments, **case.geometry), arguments, case)


@pytest.mark.parametrize(
    "far", [-30.0, 50.0, 1e4, -1e9, 2.0**31, -(2.0**31), 2.0**63, 1e30, -1e30, INFINITY, -INFINITY]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_far_outside_is_zero(far, axis, dtype, device, backend):
    """Also where a position overflows every integer type. No NaN may come from inf - inf or 0 * inf."""
    arguments = deform_arguments(CASE, dtype, device)
    arguments["offset"].zero_()
    # By way of a tensor: newer torch refuses to write a number that float16 rounds to infinity.
    arguments["offset"][:, axis] = torch.tensor(far, dtype=torch.float64).to(dtype)
    got = run(ops.deform_conv2d, arguments, **CASE.geometry)
    bias = arguments["bias"].reshape(1, -1, 1, 1).expand_as(got.output)
    assert_bitwise_equal(got.output, bias, "output")
    for name in ("input", "offset", "weight", "mask"):
        assert torch.equal(got.gradients[name], torch.zeros_like(arguments[name])), name
    assert got.gradients["bias"].any()


@pytest.mark.parametrize("pixel", [NAN, INFINITY], ids=str)
@pytest.mark.parametrize(
    ("y", "x"), [(-1.0, 2.0), (2.0, -1.0), (HEIGHT, 2.0), (2.0, WIDTH), (-1.0, -1.0), (-40.0, 1e30)]
)
def test_a_pixel_that_is_no_number_is_not_seen_from_outside(y, x, pixel, device, backend):
    """Neither by the output nor by the gradients for weight and mask, which are products with the value 0."""
    arguments = positioned(y, x, torch.float32, device)
    arguments["input"].fill_(pixel)
    got = run(ops.deform_conv2d, arguments, **CASE.geometry)
    assert_bitwise_equal(got.output, arguments["bias"].reshape(1, -1, 1, 1).expand_as(got.output), "output")
    for name in ("input", "weight", "mask"):
        assert torch.equal(got.gradients[name], torch.zeros_like(arguments[name])), name


@pytest.mark.parametrize(("y", "x"), [(-1.0, 2.0), (2.0, -1.0), (-1.0, -1.0), (HEIGHT, 2.0)])
def test_an_infinite_gradient_does_not_reach_a_pixel_beside_the_border(y, x, device, native):
    """As in torchvision: the pixel's weight is 0, but 0 times infinity would be NaN."""
    arguments = positioned(y, x, torch.float32, device)
    arguments["grad"].fill_(INFINITY)
    gradient = run(ops.deform_conv2d, arguments, ("input",), **CASE.geometry).gradients["input"]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["plain", "groups_2_offset_groups_4", "channels_33_to_17", "v1"])
def test_nan_offset_gives_nan_in_that_pixel_only(name, axis, dtype, device, backend):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = deform_arguments(case, dtype, device)
    clean = run(ops.deform_conv2d, arguments, **case.geometry)
    image, offset_group, tap, row, column = 1, case.offset_groups - 1, 5, 3, 2
    taps = case.kernel[0] * case.kernel[1]
    position = 2 * (offset_group * taps + tap)
    arguments["offset"] = arguments["offset"].clone()
    arguments["offset"][image, position + axis, row, column] = NAN
    got = run(ops.deform_conv2d, arguments, **case.geometry)

    def assert_nan_at(tensor, *place):
        expected = torch.zeros(tensor.shape, dtype=torch.bool)
        expected[place] = True
        assert torch.equal(tensor.isnan().cpu(), expected)

    # The channels that the offset group samples, and the outputs of the weight groups that these channels are in.
    channels = torch.arange(case.channels)
    sampled = channels // (case.channels // case.offset_groups) == offset_group
    groups_hit = (channels // (case.channels // case.groups))[sampled].unique()
    outputs_hit = torch.isin(torch.arange(case.out_channels) // (case.out_channels // case.groups), groups_hit)
    assert_nan_at(got.output, image, outputs_hit, row, column)
    keep = ~got.output.isnan()
    assert torch.equal(got.output[keep], clean.output[keep])
    assert_nan_at(got.gradients["offset"], image, slice(position, position + 2), row, column)
    if case.mask:
        assert_nan_at(got.gradients["mask"], image, offset_group * taps + tap, row, column)

    # [O, C/groups, K]: where output and channel are of one group, the channel of the offset group, the tap
    expected = torch.zeros(case.out_channels, case.channels // case.groups, taps, dtype=torch.bool)
    for output in range(case.out_channels):
        first = output // (case.out_channels // case.groups) * (case.channels // case.groups)
        expected[output, :, tap] = sampled[first : first + case.channels // case.groups]
    assert torch.equal(got.gradients["weight"].flatten(2).isnan().cpu(), expected), "weight"
    assert not got.gradients["input"].isnan().any()
    assert not got.gradients["bias"].isnan().any()


@pytest.mark.parametrize("name", ["tiles", "depthwise", "one_pixel"])
def test_all_positions_nan_is_no_crash(name, dtype, device, backend):
    case = DEFORM_CASES_BY_NAME[name]
    arguments = deform_arguments(case, dtype, device)
    arguments["offset"].fill_(NAN)
    got = run(ops.deform_conv2d, arguments, **case.geometry)
    assert got.output.isnan().all()
    assert got.gradients["offset"].isnan().all()
    assert not got.gradients["input"].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_positions_of_16_bit_tensors_are_float32(dtype, device, backend):
    """At column 1500 the spacing is 1 in float16 and 8 in bfloat16; a quarter pixel must still be a quarter pixel."""
    image = (torch.arange(1600, device=device) % 4).to(dtype).reshape(1, 1, 1, -1)  # 0, 1, 2, 3, 0, …
    offset = torch.zeros(1, 2, 1, 1600, dtype=dtype, device=device)
    offset[:, 1] = 0.25
    output = ops.deform_conv2d(image, offset, torch.ones(1, 1, 1, 1, dtype=dtype, device=device))
    assert output.dtype == dtype
    assert output[0, 0, 0, 1500:1504].tolist() == [0.25, 1.25, 2.25, 2.25]
    assert output[0, 0, 0, 1596:].tolist() == [0.25, 1.25, 2.25, 2.25]
