"""accelerate on stems and other modules that run one after the other."""

from __future__ import annotations

from functools import partial
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from helpers.accelerated import image, randomised, results, timms
from torch import nn

from resnet_cuda.acceleration import accelerate

pytest.importorskip("torchvision")
from torchvision.models import resnet, resnet18
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.misc import Conv2dNormActivation


def relus_run(model, x):
    """How often a call runs the function of class ReLU's forward."""
    with mock.patch.object(F, "relu", wraps=F.relu) as relu:
        output = model(x)
    return output, relu.call_count


STEMS = {
    "torchvision": partial(resnet18, num_classes=7, norm_layer=FrozenBatchNorm2d),
    "timm": partial(timms, "resnet18", frozen=True),
    "timm, deep": partial(timms, "resnet18d"),
    "timm, features": lambda: pytest.importorskip("timm").create_model("resnet18d", features_only=True),
}


@torch.no_grad()
@pytest.mark.parametrize("name", STEMS)
def test_stems_are_fused(name):
    """Where nothing observes the parts, no ReLU runs by itself."""
    model = randomised(STEMS[name]()).double().eval()
    expected, before = relus_run(model, image())
    found = accelerate(model)
    assert "" in found.replaced
    got, after = relus_run(model, image())
    torch.testing.assert_close(got, expected)
    assert before > 0
    # The first level that timm's extractor returns is the stem's ReLU, which is fused all the same.
    assert after == 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["conv1", "bn1", "relu", "maxpool"])
def test_returned_results_within_a_stem(name):
    from torchvision.models._utils import IntermediateLayerGetter

    model = resnet18(norm_layer=FrozenBatchNorm2d)
    model.relu = nn.ReLU()  # torchvision's, in place, changes what is returned of bn1
    model = IntermediateLayerGetter(randomised(model), {name: "first", "layer2": "last"}).double().eval()
    expected = model(image())
    assert accelerate(model).replaced[""] == "torchvision.models._utils.IntermediateLayerGetter"
    got = model(image())
    assert list(got) == ["first", "last"]
    torch.testing.assert_close(got, expected)


def shared_parts():
    """A body in which a block, and in its stem an activation, stand in two places each."""
    relu = nn.ReLU()
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), relu, nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), relu)
    model = resnet18(num_classes=7)
    model.conv1 = nn.Sequential(*layers, nn.Conv2d(64, 64, 3))
    model.layer1 = nn.Sequential(model.layer1[0], model.layer1[1], model.layer1[1])
    return model


def shared_activation():
    layer = Conv2dNormActivation(3, 8)
    return layer.append(nn.Conv2d(8, 8, 1)).append(nn.BatchNorm2d(8)).append(layer[2])


def followed_by(norm):
    """A body that ends with a norm of vectors."""
    model = resnet18(num_classes=7)
    model.avgpool = nn.Sequential(model.avgpool, nn.Flatten(), nn.Linear(512, 512), norm(512), nn.ReLU())
    return model


UNUSUAL = {
    "parts in two places": shared_parts,
    "activation in two places": shared_activation,
    "BatchNorm1d": partial(followed_by, nn.BatchNorm1d),
    "SyncBatchNorm of vectors": partial(followed_by, nn.SyncBatchNorm),
}


@torch.no_grad()
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_sequences(name):
    model = randomised(UNUSUAL[name]()).double().eval()
    expected = model(image())
    assert accelerate(model).replaced
    torch.testing.assert_close(model(image()), expected)


def test_a_stem_of_a_subclass_and_one_that_is_trained():
    class Doubled(resnet.ResNet):
        def _forward_impl(self, x):
            return super()._forward_impl(2 * x)

    model = randomised(Doubled(resnet.BasicBlock, [1, 1, 1, 1], num_classes=7)).double().eval()
    expected = model(image())
    found = accelerate(model)
    assert found.left[""] == "Doubled is a subclass of torchvision.models.resnet.ResNet"
    torch.testing.assert_close(model(image()), expected)
    model = randomised(resnet18(num_classes=7)).double().eval()
    expected = results(model, image())
    accelerate(model)
    got = results(model, image())
    assert got["bn1.weight"].any()
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_single_image_without_a_batch():
    """torchvision's frozen norm makes a batch of one of it."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None).eval()
    image = torch.rand(3, 64, 96)
    expected = backbone(image)
    accelerate(backbone)
    found = backbone(image)
    assert expected["0"].shape == (1, 256, 16, 24)
    for name, level in expected.items():
        torch.testing.assert_close(found[name], level, rtol=1e-4, atol=1e-5)
