"""calibrate: measured statistics are those of the layers' inputs, and nothing else of the model changes."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from helpers.networks import frozen_norms, narrow_cfg, narrow_fpn, one_process_group
from torch import nn
from torch.overrides import TorchFunctionMode

import resnet_cuda
from resnet_cuda import build_backbone, calibrate, resnet_fpn_backbone
from resnet_cuda.layers import Conv2d, FrozenBatchNorm2d


def configured():
    return build_backbone(narrow_cfg())


def outputs_of_norms(model, run):
    """What each frozen norm makes of its input, without residual and ReLU."""
    seen = {}

    def look(name, layer, x):
        shape = (-1, 1, 1)
        scale = layer.weight * (layer.running_var + layer.eps).rsqrt()
        seen[name] = (x - layer.running_mean.view(shape)) * scale.view(shape) + layer.bias.view(shape)

    handles = [
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: look(name, layer, inputs[0]))
        for name, layer in frozen_norms(model).items()
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return seen


def assert_normalised(seen, count, dim=(0, 2, 3)):
    assert len(seen) == count > 0
    for normalised in seen.values():
        mean, variance = normalised.mean(dim=dim), normalised.var(dim=dim, correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-3, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-2, rtol=0)


@pytest.mark.parametrize("build", [narrow_fpn, configured])
@pytest.mark.parametrize("as_list", [False, True])
def test_layers_give_mean_0_and_variance_1(build, as_list, backend):
    model, images = build().eval(), torch.rand(3, 3, 64, 80)
    assert calibrate(model, list(images) if as_list else images) == len(frozen_norms(model))
    assert_normalised(outputs_of_norms(model, lambda: model(images)), len(frozen_norms(model)))
    for level in model(images).values() if isinstance(model(images), dict) else model(images):
        assert level.std() < 20


def test_weight_and_bias_stay_and_count():
    layer = FrozenBatchNorm2d(4)
    layer.weight.fill_(2)
    layer.bias.fill_(3)
    assert calibrate(nn.Sequential(layer), torch.randn(8, 4, 9, 9) * 5 + 7) == 1
    assert torch.equal(layer.weight, torch.full((4,), 2.0))
    assert torch.equal(layer.bias, torch.full((4,), 3.0))


def test_several_batches_are_pooled():
    """Of unequal size and distribution: the statistics of one layer are those of everything together."""
    batches = [torch.randn(2, 4, 5, 6) * 3 + 1, torch.randn(5, 4, 7, 3) - 100, torch.rand(1, 4, 2, 2)]
    layer = FrozenBatchNorm2d(4)
    calibrate(nn.Sequential(layer), iter(batches))
    everything = torch.cat([batch.transpose(0, 1).flatten(1) for batch in batches], dim=1).double()
    torch.testing.assert_close(layer.running_mean.double(), everything.mean(dim=1), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(layer.running_var.double(), everything.var(dim=1, correction=0), atol=1e-3, rtol=1e-5)


def test_images_of_several_sizes_are_taken():
    model = narrow_fpn()
    images = [torch.rand(3, 64, 64), torch.rand(3, 48, 80), torch.rand(3, 64, 64)]
    assert calibrate(model, images) == len(frozen_norms(model))
    assert all(layer.running_mean.any() for layer in frozen_norms(model).values())


def test_batches_of_a_loader_are_taken():
    model, images = narrow_fpn(), torch.rand(6, 3, 32, 32)
    loader = torch.utils.data.DataLoader(images, batch_size=2, shuffle=True)
    state = torch.get_rng_state()
    assert calibrate(model, loader) == len(frozen_norms(model))
    assert torch.equal(torch.get_rng_state(), state)  # the shuffling drew from it


def test_a_whole_detector_is_calibrated():
    detection = pytest.importorskip("torchvision.models.detection", reason="torchvision's detector")
    model = detection.MaskRCNN(
        narrow_fpn(dcn_stages=(False, False, False, True)), num_classes=2, min_size=64, max_size=96
    )
    images = [torch.rand(3, 48, 64), torch.rand(3, 64, 50)]
    assert calibrate(model, images) == len(frozen_norms(model))
    model.eval()
    batch = model.transform(images)[0].tensors
    assert_normalised(outputs_of_norms(model, lambda: model.backbone(batch)), len(frozen_norms(model)))
    # As one batch, and as a batch of a loader.
    other = copy.deepcopy(model)
    assert calibrate(other, [images]) == len(frozen_norms(model))
    for name, layer in frozen_norms(other).items():
        assert torch.equal(layer.running_var, frozen_norms(model)[name].running_var)


def test_frozen_norms_behind_a_detectors_backbone_are_reached():
    detection = pytest.importorskip("torchvision.models.detection", reason="torchvision's detector")
    model = detection.RetinaNet(narrow_fpn(), num_classes=2, min_size=64, max_size=96)
    model.head.classification_head.conv.append(FrozenBatchNorm2d(8))
    assert calibrate(model, [torch.rand(3, 48, 64)]) == len(frozen_norms(model)) == 21
    assert model.head.classification_head.conv[-1].running_mean.any()


def test_everything_else_stays():
    model = narrow_fpn(trainable_layers=2).train()
    model.body.layer1.eval()
    drawn = nn.Dropout(0.5)
    model.body.layer2.append(drawn)

    def state_of():
        modules = {name: (it.training, len(it._forward_pre_hooks)) for name, it in model.named_modules()}
        return modules, {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    others = {name: value.clone() for name, value in model.state_dict().items() if "running" not in name}
    calls = []
    handle = model.body.register_forward_hook(lambda *_: calls.append(torch.rand(1)))
    before = state_of()
    torch.rand(3)
    state = torch.get_rng_state()
    calibrate(model, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert state_of() == before
    assert len(calls) == 1
    handle.remove()
    for name, value in others.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_channel_that_does_not_vary_is_centred_only():
    """Its variance is rounding noise; a division by that would be the loudest signal of the network."""
    x = torch.randn(4, 3, 8, 8)
    x[:, 0] = 0
    x[:, 1] = 0.1 + torch.rand(4, 8, 8) * 1e-8
    layer = FrozenBatchNorm2d(3, eps=0)
    calibrate(nn.Sequential(layer), x)
    assert layer.running_var[:2].tolist() == [1, 1]
    torch.testing.assert_close(layer.running_mean[:2], torch.tensor([0, 0.1]))
    assert layer(x).isfinite().all()


@pytest.mark.parametrize("wrapped", ["compiled", "data parallel"])
def test_wrapped_models_are_calibrated(wrapped, tmp_path):
    model = narrow_fpn()
    if wrapped == "compiled":
        outer = torch.compile(model, backend="eager")
        assert calibrate(outer, torch.rand(1, 3, 32, 32)) == 20
    else:
        with one_process_group(tmp_path):
            assert calibrate(nn.parallel.DistributedDataParallel(model), torch.rand(1, 3, 32, 32)) == 20
    assert model.body.bn1.running_mean.any()


BATCH = torch.rand(1, 3, 8, 8)
WRONG = {
    "no tensor": (5, TypeError, "images is int; it must be a tensor"),
    "text": ("images", TypeError, "images is str"),
    "a dictionary": ({"images": 1}, TypeError, "images is dict"),
    "pairs of a data set": ([(torch.rand(3, 8, 8), 5)], TypeError, "images has an entry of tuple"),
    "no image": ([], ValueError, "images is empty"),
    "a loader without images": (iter(()), ValueError, "images is empty"),
    "a batch of none": (torch.rand(0, 3, 8, 8), ValueError, r"an empty entry, of shape \(0, 3, 8, 8\)"),
    "one image": (BATCH[0], ValueError, r"an entry of shape \(3, 8, 8\); it must be a tensor \(N, 3, H, W\)"),
    "pixels": ([torch.rand(8, 8)], ValueError, r"an entry of shape \(8, 8\)"),
    "bytes": (BATCH.byte(), ValueError, "an entry of torch.uint8; it must be floating point"),
    "NaN": (BATCH * float("nan"), ValueError, "an entry with NaN or infinity"),
    "infinity in the second": ([BATCH, BATCH + float("inf")], ValueError, "infinity"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_images_change_nothing(name):
    images, error, message = WRONG[name]
    model = narrow_fpn().train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=f"calibrate: .*{message}"):
        calibrate(model, images)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert model.training
    assert not any(layer._forward_pre_hooks for layer in frozen_norms(model).values())


def test_what_cannot_be_calibrated_is_named():
    with pytest.raises(TypeError, match="calibrate: model is a int; it must be a torch.nn.Module"):
        calibrate(3, torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"model \(BackboneWithFPN\) has no resnet_cuda.layers.FrozenBatchNorm2d"):
        calibrate(narrow_fpn(norm_layer="gn"), torch.rand(1, 3, 32, 32))
    namesake = type("FrozenBatchNorm2d", (nn.Module,), {"__module__": "another.library"})
    for network, norms in (
        (narrow_fpn(norm_layer="bn"), "its norms are 20 BatchNorm2d, which measure by themselves in training"),
        (narrow_fpn(norm_layer="gn"), "its norms are 20 GroupNorm"),
        (nn.Sequential(nn.Conv2d(3, 3, 1)), "it has no norms"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.GroupNorm(1, 3)), "its norms are 1 BatchNorm2d, 1 GroupNorm"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "its norms are 1 BatchNorm2d"),
        (nn.Sequential(namesake()), "its norms are 1 another.library.FrozenBatchNorm2d"),
    ):
        with pytest.raises(ValueError, match=f"there is nothing to measure; {re.escape(norms)}$"):
            calibrate(network, torch.rand(1, 3, 32, 32))

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = FrozenBatchNorm2d(3), FrozenBatchNorm2d(3)

        def forward(self, x):
            return self.used(x)

    with pytest.warns(UserWarning, match="1 of 2 frozen norms were not reached and keep their statistics: unused"):
        assert calibrate(Unused(), torch.rand(1, 3, 8, 8)) == 1
    model = Unused()
    model.used = nn.Identity()
    with pytest.raises(ValueError, match="the forward of Unused reached none of its frozen norms"):
        calibrate(model, torch.rand(1, 3, 8, 8))


def test_a_layer_whose_input_is_not_finite_is_named():
    model = nn.Sequential(Conv2d(3, 4, 1), FrozenBatchNorm2d(4), Conv2d(4, 4, 1), FrozenBatchNorm2d(4))
    with torch.no_grad():
        model[2].weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="the input of layer 3 is not finite"):
        calibrate(model, torch.rand(1, 3, 8, 8))
    assert not model[1].running_mean.any()  # put back, too


def test_a_calibrated_network_trains():
    """Loss and gradients stay finite where the untouched one's activations grow from block to block."""
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    untouched, model = resnet_fpn_backbone("resnet101", width=8).body, resnet_fpn_backbone("resnet101", width=8).body
    calibrate(model, images)
    with torch.no_grad(), pytest.warns(UserWarning, match="never given statistics"):
        loud, quiet = untouched(images)["3"].std(), model(images)["3"].std()
    assert loud > 1000
    assert 0.1 < quiet < 10


class DeviceWithoutFloat64(TorchFunctionMode):
    """As Apple's GPUs: only what was brought to the CPU can be float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.double and not getattr(args[0], "is_on_the_cpu", False):
            raise TypeError("this device has no float64")
        result = function(*args, **(kwargs or {}))
        if function is torch.Tensor.cpu:
            result = result.clone()
            result.is_on_the_cpu = True
        return result


def test_a_device_without_float64():
    model = narrow_fpn(norm_layer=FrozenBatchNorm2d)
    images = torch.rand(2, 3, 64, 96)
    with DeviceWithoutFloat64():
        calibrate(model, images)


def test_public_name():
    assert resnet_cuda.calibrate is calibrate
    assert "calibrate" in resnet_cuda.__all__
