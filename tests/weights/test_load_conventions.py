"""Epsilons, other input channels, colour order and pixel scale, the stride's place."""

from __future__ import annotations

import contextlib
import warnings

import pytest
import torch
from helpers.loading import IMAGE, by_configuration, source
from helpers.networks import (
    levels_of,
    narrow_fpn,
    randomise,
)

from resnet_cuda import load_weights
from resnet_cuda.layers import FrozenBatchNorm2d
from resnet_cuda.weights.convert import convert


@pytest.mark.parametrize(("given", "own"), [(1e-5, 0.0), (0.0, 1e-5), (1e-3, 1e-5), (1e-5, 1e-5)])
def test_epsilons_are_made_equal(given, own):
    """Also for channels whose variance is far below the epsilon, or 0."""

    def build(eps):
        return narrow_fpn(norm_layer=lambda channels: FrozenBatchNorm2d(channels, eps)).double().eval()

    network, model = randomise(build(given)), build(own)
    for layer in network.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            layer.running_var[:4] = torch.tensor([1e-7, 1e-12, 1e-40, 0.0 if given else 1e-30]).double()
            layer.weight[:4] = torch.tensor([1e-4, 1e-6, 1e-20, 1e-15]).double()
    report = load_weights(model, network)
    assert not report.missing
    with torch.no_grad():
        for got, expected in zip(levels_of(model(IMAGE)), levels_of(network(IMAGE)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_a_channel_that_is_constant_stays_constant():
    network = randomise(narrow_fpn(norm_layer=lambda channels: FrozenBatchNorm2d(channels, 0.0)))
    network.body.bn1.running_var[0] = 0
    model = narrow_fpn()
    load_weights(model, network)
    x = torch.randn(1, 8, 5, 5)
    expected, got = network.body.bn1(x), model.body.bn1(x)
    torch.testing.assert_close(got, expected)
    assert (got[:, 0] == network.body.bn1.bias[0]).all()


def test_an_epsilon_may_be_given():
    network, model = randomise(narrow_fpn()), narrow_fpn()
    load_weights(model, network.state_dict(), eps=0)
    expected = network.body.bn1.running_var - 1e-5
    torch.testing.assert_close(model.body.bn1.running_var, expected)


def test_statistics_in_16_bit_are_summed_in_the_models_dtype():
    network, model = randomise(narrow_fpn()), narrow_fpn()
    state = {key: value.half() for key, value in network.state_dict().items()}
    load_weights(model, state, eps=1e-3)
    expected = state["body.bn1.running_var"].double() + 1e-3 - 1e-5
    torch.testing.assert_close(model.body.bn1.running_var.double(), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_stems_are_adapted_to_other_input_channels(channels):
    network, model = randomise(narrow_fpn()), narrow_fpn(in_channels=channels)
    report = load_weights(model, network)
    assert report.reshaped == ["body.conv1.weight"]
    weight, expected = model.body.conv1.weight, network.body.conv1.weight
    if channels == 1:
        torch.testing.assert_close(weight[:, 0], expected.sum(1))
    else:
        torch.testing.assert_close(weight, expected.repeat(1, 2, 1, 1)[:, :channels] * 3 / channels)


def test_pixels_convert_the_stem():
    """detectron2's mean is torchvision's, so its weights give the same for the same picture."""
    network = randomise(narrow_fpn())
    bgr = IMAGE.float() * 100
    model = narrow_fpn()
    report = load_weights(model, convert(network.state_dict(), "detectron2").weights, pixels="torchvision")
    rgb = bgr.flip(1) / torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    with torch.no_grad():
        for got, expected in zip(levels_of(model.eval()(rgb)), levels_of(network.eval()(bgr)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert any("stem converted from BGR" in note for note in report.notes)


def test_another_mean_is_said():
    report = load_weights(
        narrow_fpn(), convert(narrow_fpn().state_dict(), "caffe2").content, pixels=("caffe2", "torchvision")
    )
    assert any("122.7717, 115.9465, 102.9801" in note for note in report.notes)


def test_a_torchvision_detector_is_warned_of_bgr_weights():
    detection = pytest.importorskip("torchvision.models.detection")
    weights = convert(narrow_fpn().state_dict(), "caffe2").weights
    model = detection.FasterRCNN(narrow_fpn(), num_classes=3)
    with pytest.warns(UserWarning, match="pixels='torchvision'"):
        load_weights(model, weights)
    with warnings_are_errors():
        load_weights(model, weights, pixels="torchvision")


def test_a_stride_in_the_other_convolution_is_warned_of():
    network = source()
    with pytest.warns(UserWarning, match="stride in the first 1x1, those of torchvision's mostly in the 3x3"):
        load_weights(by_configuration(STRIDE_IN_1X1=True), network.state_dict())
    with pytest.warns(UserWarning, match="stride in the first 1x1, those of the weights in the 3x3"):
        load_weights(by_configuration(STRIDE_IN_1X1=True), network)
    with warnings_are_errors():
        load_weights(by_configuration(), network.state_dict())


@contextlib.contextmanager
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
