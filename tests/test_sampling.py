"""Where deformable layers sample: against a plain loop, through resizing and padding, and nothing else changes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers.networks import cfg_built, narrow_fpn, torchvision_style
from torch import nn

import resnet_cuda
from resnet_cuda.inference.deformable import FoldedDeformPack
from resnet_cuda.layers import Conv2d, DeformConv2d, DFConv2d, ModulatedDeformConv
from resnet_cuda.sampling import (
    deformable_layer,
    deformable_layers,
    observe_sampling,
    sampling_density,
    sampling_points,
)


def randomised(layer, scale=0.3):
    """``layer`` with offsets of some pixels and masks that differ, by place and by tap."""
    with torch.no_grad():
        layer.offset.weight.uniform_(-scale, scale)
        layer.offset.bias.uniform_(-1, 1)
    return layer


class Single(nn.Module):
    """One deformable layer on the image itself."""

    def __init__(self, **options):
        super().__init__()
        self.layer = randomised(DFConv2d(2, 3, **options))

    def forward(self, x):
        return self.layer(x)


CASES = {
    "v2": {},
    "v1": {"with_modulated_dcn": False},
    "stride": {"stride": 2},
    "dilation": {"dilation": 2},
    "no padding": {"padding": 0},
    "groups": {"deformable_groups": 2},
    "all of it": {
        "kernel_size": (3, 5),
        "stride": (2, 1),
        "dilation": (1, 2),
        "padding": (0, 3),
        "deformable_groups": 2,
    },
}


def predicted(model, image):
    """Offsets (G, K, 2, Ho, Wo) as dy, dx, and masks (G, K, Ho, Wo), from the layer's own convolution."""
    layer = model.layer
    groups = layer.conv.deformable_groups
    with torch.no_grad():
        out = layer.offset(image[None])[0]
    offset = out[: layer.offset_channels].unflatten(0, (groups, -1, 2))
    if layer.with_modulated_dcn:
        return offset, out[layer.offset_channels :].sigmoid().unflatten(0, (groups, -1))
    return offset, torch.ones_like(offset[:, :, 0])


def taps_of(conv, row, column):
    """The regular position of each tap of an output pixel, in pixel indices: number, y, x."""
    for number, (i, j) in enumerate(itertools.product(range(conv.kernel_size[0]), range(conv.kernel_size[1]))):
        y = row * conv.stride[0] - conv.padding[0] + i * conv.dilation[0]
        x = column * conv.stride[1] - conv.padding[1] + j * conv.dilation[1]
        yield number, y, x


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_points_against_a_loop(options, backend):
    model, image = Single(**options), torch.rand(2, 13, 18)
    conv = model.layer.conv
    offset, mask = predicted(model, image)
    rows, columns = offset.shape[-2:]
    middle = [(k - 1) * d / 2 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    pixels = [(0, 0), (1, 2), (rows // 2, columns // 2), (rows - 1, columns - 1)]
    places = torch.tensor(
        [
            [
                column * conv.stride[1] - conv.padding[1] + middle[1] + 0.7,
                row * conv.stride[0] - conv.padding[0] + middle[0] + 0.3,
            ]
            for row, column in pixels
        ]
    )
    points, masks, grid = sampling_points(model, image, "layer", places)
    groups, taps = mask.shape[:2]
    assert points.shape == (4, groups, taps, 2) and masks.shape == (4, groups, taps) and grid.shape == (4, taps, 2)
    for n, (row, column) in enumerate(pixels):
        for k, y, x in taps_of(conv, row, column):
            assert grid[n, k].tolist() == [x + 0.5, y + 0.5]
            for g in range(groups):
                dy, dx = offset[g, k, :, row, column].tolist()
                assert points[n, g, k].tolist() == pytest.approx([x + 0.5 + dx, y + 0.5 + dy], abs=1e-4)
                assert float(masks[n, g, k]) == pytest.approx(float(mask[g, k, row, column]), abs=1e-5)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_density_against_a_loop(options, backend):
    model, image = Single(**options), torch.rand(2, 9, 12)
    offset, mask = predicted(model, image)
    groups = mask.shape[0]
    expected = torch.zeros(9, 12)
    for row, column in itertools.product(*map(range, offset.shape[-2:])):
        for k, y, x in taps_of(model.layer.conv, row, column):
            for g in range(groups):
                dy, dx = offset[g, k, :, row, column].tolist()
                top, left = math.floor(y + dy), math.floor(x + dx)
                for i, j in itertools.product((top, top + 1), (left, left + 1)):
                    if 0 <= i < 9 and 0 <= j < 12:
                        weight = (1 - abs(y + dy - i)) * (1 - abs(x + dx - j))
                        expected[i, j] += float(mask[g, k, row, column]) * weight / groups
    for at_image_size in (False, True):  # the layer works on the image itself
        density = observe_sampling(model, image, "layer").density(at_image_size=at_image_size)
        torch.testing.assert_close(density, expected, atol=1e-4, rtol=1e-4)


def test_zero_offsets_are_the_regular_grid():
    model = narrow_fpn(dcn_stages=(False, False, False, True))
    name = next(reversed(deformable_layers(model)))
    look = observe_sampling(model, torch.rand(1, 3, 96, 160), name)
    points, masks, grid = look.points(torch.tensor([[70.0, 40.0]]))
    assert look.strides() == (32, 32)
    expected = torch.tensor([[x, y] for y in (0.5, 32.5, 64.5) for x in (32.5, 64.5, 96.5)])
    torch.testing.assert_close(grid[0], expected)  # of the output pixel (1, 2), around (64.5, 32.5)
    torch.testing.assert_close(points[0, 0], expected)
    assert (masks == 0.5).all()
    density = look.density()
    assert density.shape == (96, 160)
    assert float(density[32, 64]) == pytest.approx(9 / 2)  # the centre of a pixel off the border
    with torch.no_grad():
        deformable_layer(model, name)[1].offset.bias[8] = 0.5  # dy of the middle tap
    moved = sampling_points(model, torch.rand(1, 3, 96, 160), name, torch.tensor([[70.0, 40.0]])).points
    change = torch.zeros(9, 2)
    change[4, 1] = 16
    torch.testing.assert_close(moved[0, 0] - expected, change)


@pytest.mark.parametrize("size", [(96, 160), (97, 131), (50, 70)])
def test_positions_are_the_centres_of_receptive_fields(size):
    """A body of box filters: what a pixel of the layer's input is computed from lies evenly around its position."""
    body = nn.Sequential(Conv2d(1, 1, 7, 2, 3), nn.MaxPool2d(1, 2), Conv2d(1, 1, 3, 2, 1), DFConv2d(1, 1))
    for layer in body[:3:2]:
        nn.init.ones_(layer.weight)
    image = torch.zeros(1, 1, *size, requires_grad=True)
    row, column = 3, 4
    body[:3](image)[0, 0, row, column].backward()
    weight = image.grad[0, 0] / image.grad.sum()
    y = (weight.sum(1) * (torch.arange(size[0]) + 0.5)).sum()
    x = (weight.sum(0) * (torch.arange(size[1]) + 0.5)).sum()
    grid = sampling_points(body, image.detach(), body[3], torch.tensor([[x, y]])).grid
    torch.testing.assert_close(grid[0, 4], torch.stack([x, y]))


def test_another_stride_is_taken_from_the_sizes():
    model = nn.Sequential(nn.AvgPool2d(3), DFConv2d(3, 3))
    points = sampling_points(model, torch.rand(3, 30, 60), "1", torch.tensor([[16.0, 10.0]])).points
    assert points[0, 0, 4].tolist() == [16.5, 10.5]  # the centre of pixels 15 to 17, 9 to 11


def detector(**options):
    detection = pytest.importorskip("torchvision.models.detection")
    backbone = torchvision_style(name="resnet18")
    return detection.FasterRCNN(backbone, 2, **({"min_size": 64, "max_size": 128} | options)).eval()


def test_a_detectors_resizing_and_padding():
    """Of each image of a padded batch the same as alone, and at the places that a user means."""
    model = detector()
    torch.manual_seed(3)
    images = [torch.rand(3, 40, 100), torch.rand(3, 90, 60)]  # resized by 1.28 and 1.067
    name = next(iter(deformable_layers(model)))
    assert name == "backbone.body.layer3.0.conv2"
    look = observe_sampling(model, images, name)
    assert look.batch_size == (96, 128) and look.resized_sizes == ((51, 128), (96, 64))
    for index, (image, scale) in enumerate(zip(images, ((1.28, 51 / 40), (64 / 60, 96 / 90)), strict=True)):
        places = torch.tensor([[30.0, 20.0], [50.0, 35.0]])
        points, masks, grid = look.points(places, index)
        alone = sampling_points(model, [image], name, places)
        # Offsets differ where a receptive field reaches the padding, which is wider in the batch.
        torch.testing.assert_close(grid, alone.grid)
        assert points.shape == (2, 1, 9, 2) and masks.shape == (2, 1, 9)
        centre = grid[:, 4]
        assert (centre - places).abs().max() <= 8  # the layer works at 1/16 of the resized image
        resized = centre * torch.tensor(scale) - 0.5
        torch.testing.assert_close(resized, (resized / 16).round() * 16, atol=1e-3, rtol=0)
        density = sampling_density(model, images, name, index)
        assert density.shape == image.shape[-2:] and bool((density >= 0).all()) and density.sum() > 0
    # The interpolation to the image's frame takes the value of the place in the layer's input.
    whole = look.density(1, at_image_size=False)
    assert whole.shape == (6, 8)
    x, y = 30, 45  # centre (30.5, 45.5)
    at = [(30.5 * 64 / 60 - 0.5) / 16, (45.5 * 96 / 90 - 0.5) / 16]
    left, top = math.floor(at[0]), math.floor(at[1])
    fx, fy = at[0] - left, at[1] - top
    expected = sum(
        float(whole[top + i, left + j]) * (fy if i else 1 - fy) * (fx if j else 1 - fx)
        for i, j in itertools.product((0, 1), (0, 1))
    )
    assert float(look.density(1)[y, x]) == pytest.approx(expected, rel=1e-4)


def test_a_layer_outside_the_backbone_runs_the_whole_detector():
    model = detector()
    model.rpn.head.conv[0] = nn.Sequential(randomised(DFConv2d(16, 16)), nn.ReLU())
    look = observe_sampling(model, [torch.rand(3, 64, 64)], model.rpn.head.conv[0][0])
    assert look.name == "rpn.head.conv.0.0"
    assert look.strides() == (4, 4)  # the first of five levels
    model.roi_heads.box_head = nn.Sequential(DFConv2d(16, 16), nn.Flatten(), nn.Linear(16 * 49, 1024))
    with pytest.raises(ValueError, match="roi_heads.box_head.0 ran on a batch of .*, not on the batch of 1 images"):
        observe_sampling(model, [torch.rand(3, 64, 64)], "box_head.0")


def test_layers_by_name():
    model = cfg_built()
    layers = deformable_layers(model)
    assert layers and all(dict(model.named_modules())[name] is layer for name, layer in layers.items())
    assert all(type(layer) is DFConv2d for layer in layers.values())
    name = next(iter(layers))
    assert deformable_layer(model, name) == (name, layers[name])
    assert deformable_layer(model, name.split(".", 1)[1])[0] == name
    assert deformable_layer(model, layers[name])[0] == name
    assert deformable_layer(model, layers[name].conv)[0] == name
    wrapped = nn.Sequential(DeformConv2d(2, 2, 3), nn.Sequential(ModulatedDeformConv(2, 2, 3)), nn.Conv2d(2, 2, 1))
    assert list(deformable_layers(wrapped)) == ["0", "1.0"]


def test_an_optimized_copys_layers():
    torch.manual_seed(0)
    model = Single(with_modulated_dcn=True).eval()
    x = torch.rand(1, 2, 12, 10)
    optimized = resnet_cuda.optimize_for_inference(model)
    torch.testing.assert_close(sampling_density(optimized, x, "layer"), sampling_density(model, x, "layer"))
    pack = DeformConv2d(2, 3, 3, padding=1)  # as mmcv's, which predicts its own offsets
    pack.conv_offset, pack.modulated = Conv2d(2, 27, 3, padding=1), True
    FoldedDeformPack.take_over(pack, pack.weight.detach(), None, relu=False)
    assert pack(x).shape == (1, 3, 12, 10)
    assert deformable_layers(pack) == {}


def test_wrong_layers_are_named():
    model = Single()
    for wrong in ("layer3", "yer", "", "conv"):
        with pytest.raises(ValueError, match=f"layer is {wrong!r}, no deformable layer .*; its .* layers are layer$"):
            sampling_points(model, torch.rand(2, 9, 9), wrong, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="layer is a Conv2d, no deformable layer of the model"):
        sampling_points(model, torch.rand(2, 9, 9), model.layer.offset, torch.zeros(1, 2))
    with pytest.raises(ValueError, match="layer is 'conv2', 2 deformable layers of the model end so; .*layer4.0.conv2"):
        deformable_layer(narrow_fpn(dcn_stages=(False, False, False, True)), "conv2")
    with pytest.raises(TypeError, match="layer is int"):
        deformable_layer(model, 3)
    with pytest.raises(ValueError, match=r"model \(Conv2d\) has no deformable layers"):
        sampling_points(nn.Conv2d(3, 3, 1), torch.rand(3, 9, 9), "layer", torch.zeros(1, 2))
    assert deformable_layers(nn.Conv2d(3, 3, 1)) == {}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(9, 9), r"images is of shape \(9, 9\); it must be an image \(3, H, W\)"),
        ([], "images is a list of 0 entries"),
        ([torch.rand(2, 9, 9), torch.rand(2, 8, 9)], "only a torchvision detector takes several sizes"),
        (torch.rand(0, 2, 9, 9), "not empty"),
    ],
)
def test_wrong_images_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        observe_sampling(Single(), images, "layer")


def test_wrong_places_and_indices_are_named():
    look = observe_sampling(Single(), torch.rand(2, 9, 9), "layer")
    for places in (torch.zeros(2), torch.zeros(1, 3), torch.tensor([[float("nan"), 0]])):
        with pytest.raises(ValueError, match=r"places is of shape .*; it must be \(n, 2\)"):
            look.points(places)
    with pytest.raises(IndexError, match="index is 1; the layer has seen 1 images"):
        look.density(1)
    assert look.points(torch.zeros(0, 2)).points.shape == (0, 1, 9, 2)


def test_a_layer_that_is_not_reached():
    model = nn.Sequential(nn.Conv2d(2, 2, 1))
    model.unused = DFConv2d(2, 2)
    model.forward = lambda x: model[0](x)
    with pytest.raises(ValueError, match="the forward of Sequential did not reach layer unused"):
        observe_sampling(model, torch.rand(2, 9, 9), "unused")


def hooks(model):
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


def test_the_model_is_as_before(backend):
    model = torchvision_style(name="resnet18").train()
    model.body.layer1.eval()
    modes, hooked = [module.training for module in model.modules()], hooks(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state()
    for images, fails in ((torch.rand(2, 3, 64, 64), False), (torch.rand(2, 5, 64, 64), True)):
        torch.set_rng_state(before)
        if fails:
            with pytest.raises(RuntimeError):
                observe_sampling(model, images, "layer3.0.conv2")
        else:
            points = sampling_points(model, images, "layer3.0.conv2", torch.tensor([[3.0, 4.0]]))
            assert not points.points.requires_grad and not points.masks.requires_grad
            assert not sampling_density(model, images, "layer3.0.conv2").requires_grad
        assert [module.training for module in model.modules()] == modes
        assert hooks(model) == hooked
        assert all(parameter.grad is None for parameter in model.parameters())
        torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), before)


def test_in_inference_mode_and_in_bfloat16():
    model, image = Single(), torch.rand(2, 9, 9)
    expected = sampling_density(model, image, "layer")
    with torch.inference_mode():
        torch.testing.assert_close(sampling_density(model, image, "layer"), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(sampling_density(model, image, "layer"), expected, atol=0.3, rtol=0)
    density = sampling_density(model.bfloat16(), image.bfloat16(), "layer")
    assert density.dtype == torch.float32
    torch.testing.assert_close(density, expected, atol=0.3, rtol=0)


def test_positions_that_are_not_finite_read_nothing():
    model, image = Single(), torch.rand(2, 9, 9)
    with torch.no_grad():
        model.layer.offset.weight.zero_()
        model.layer.offset.bias.zero_()
        model.layer.offset.bias[0] = float("inf")
        model.layer.offset.bias[9] = float("nan")
    density = sampling_density(model, image, "layer")
    assert bool(density.isfinite().all())
    assert float(density[4, 4]) == pytest.approx(7 / 2)  # seven of nine taps, with masks of 0.5


def test_through_wrappers(backend):
    model, image = Single(), torch.rand(2, 9, 9)
    compiled = torch.compile(model, backend="eager")
    assert list(deformable_layers(compiled)) == ["layer"]
    torch.testing.assert_close(sampling_density(compiled, image, "layer"), sampling_density(model, image, "layer"))


def test_public_names():
    for name in ("deformable_layers", "sampling_points", "sampling_density"):
        assert name in resnet_cuda.__all__ and callable(getattr(resnet_cuda, name))
