"""accelerate on torchvision's and timm's networks: what is replaced, that nothing changes, and how it is undone."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from helpers.accelerated import image, randomised, results, timms
from torch import nn

import resnet_cuda
from resnet_cuda.acceleration import accelerate

torchvision = pytest.importorskip("torchvision")
from torchvision.models import detection, resnet18, resnet50  # noqa: E402
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402
from torchvision.ops import DeformConv2d as TorchvisionsDeformConv2d  # noqa: E402
from torchvision.ops import FrozenBatchNorm2d  # noqa: E402

MODELS = {
    "resnet18": partial(resnet18, num_classes=7),
    "resnet18, frozen": partial(resnet18, num_classes=7, norm_layer=FrozenBatchNorm2d),
    "resnet50, frozen": partial(resnet50, num_classes=7, norm_layer=FrozenBatchNorm2d),
    "timm resnet18, frozen": partial(timms, "resnet18", frozen=True),
    "timm resnet26d": partial(timms, "resnet26d"),
    "timm seresnet50, frozen": partial(timms, "seresnet50", frozen=True),
    "timm resnetaa50": partial(timms, "resnetaa50"),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", MODELS)
def test_same_outputs_and_gradients(name, training):
    torch.manual_seed(0)
    model = randomised(MODELS[name]()).double().train(training)
    expected_statistics = copy.deepcopy(model)
    expected = results(expected_statistics, image())
    keys, tensors = list(model.state_dict()), [*model.parameters(), *model.buffers()]
    types = [type(it) for it in model.modules()]
    found = accelerate(model)
    assert found.replaced and not found.left
    torch.testing.assert_close(results(model, image()), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.state_dict(), expected_statistics.state_dict(), rtol=1e-9, atol=1e-9)
    assert list(model.state_dict()) == keys
    assert all(one is other for one, other in zip([*model.parameters(), *model.buffers()], tensors, strict=True))
    assert all(isinstance(it, before) for it, before in zip(model.modules(), types, strict=True))
    found.undo()
    found.undo()
    assert [type(it) for it in model.modules()] == types
    torch.testing.assert_close(results(model, image())["output"], expected["output"], rtol=1e-6, atol=1e-6)


def test_frozen_norms_run_fused(monkeypatch):
    """Sum and ReLU are in the norm's pass, in place: one call of the operator for each norm, and none of ReLU."""
    from resnet_cuda.acceleration import fused

    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).eval()
    accelerate(model)
    calls = []
    original = fused.frozen_batch_norm
    monkeypatch.setattr(fused, "frozen_batch_norm", lambda *a, **k: calls.append(k.get("inplace")) or original(*a, **k))
    with torch.no_grad():
        model(image().float())
    assert calls == [True] * 20  # the stem's, too


def detector(name):
    options = {"min_size": 64, "max_size": 96, "num_classes": 3, "weights": None, "weights_backbone": None}
    if "mask" in name:
        options |= {"box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 10, "box_detections_per_img": 3}
        options |= {"rpn_post_nms_top_n_train": 10, "box_batch_size_per_image": 4}
    else:
        options |= {"score_thresh": 0.0, "detections_per_img": 10}
    torch.manual_seed(0)
    model = getattr(detection, name)(**options)
    if "v2" not in name:  # as with weights
        model.backbone = resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=None,
            norm_layer=FrozenBatchNorm2d,
            **(
                {}
                if "mask" in name
                else {
                    "returned_layers": [2, 3, 4],
                    "extra_blocks": torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256),
                }
            ),
        )
    return randomised(model)


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn"])
def test_same_detections_and_losses(name):
    model = detector(name).double().eval()
    images = [torch.rand(3, 60, 80, dtype=torch.float64), torch.rand(3, 64, 50, dtype=torch.float64)]
    targets = [
        {
            "boxes": torch.tensor([[5.0, 5.0, 30.0, 40.0]], dtype=torch.float64),
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, *it.shape[1:], dtype=torch.uint8),
        }
        for it in images
    ]

    def run():
        with torch.no_grad():
            detections = model.eval()(images)
        model.train()
        for module in model.modules():  # two runs must see the same statistics
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        torch.manual_seed(3)
        losses = model(images, targets)
        model.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        gradients = {key: it.grad for key, it in model.named_parameters() if it.grad is not None}
        return detections, {key: it.detach() for key, it in losses.items()}, gradients

    expected = run()
    types = [type(it) for it in model.modules()]
    found = accelerate(model)
    counts = {before: list(found.replaced.values()).count(before) for before in set(found.replaced.values())}
    assert counts.pop("torchvision.models.resnet.Bottleneck") == 16
    assert counts.pop("torchvision.models._utils.IntermediateLayerGetter") == 1
    layers = types.count(torchvision.ops.misc.Conv2dNormActivation)
    assert counts.pop("torchvision.ops.misc.Conv2dNormActivation") == layers > 0
    assert counts == ({} if "v2" in name else {"torchvision.ops.misc.FrozenBatchNorm2d": 53})
    assert sum(len(it["boxes"]) for it in expected[0]) > 0
    torch.testing.assert_close(run(), expected, rtol=1e-6, atol=1e-6)
    found.undo()
    assert [type(it) for it in model.modules()] == types


def test_report_is_readable():
    model = resnet18(norm_layer=FrozenBatchNorm2d)
    found = accelerate(model)
    assert found.replaced["layer1.0"] == "torchvision.models.resnet.BasicBlock"
    assert "   20 x torchvision.ops.misc.FrozenBatchNorm2d" in str(found)
    assert str(accelerate(model)) == "nothing to replace"
    assert resnet_cuda.accelerate is accelerate


def test_deformable_convolution():
    torch.manual_seed(0)
    layer = TorchvisionsDeformConv2d(4, 6, 3, stride=2, padding=1, groups=2).double()
    x = image(2, 4, 9, 8)
    offset, mask = torch.randn(2, 36, 5, 4, dtype=torch.float64), torch.rand(2, 18, 5, 4, dtype=torch.float64)
    for arguments in ((x, offset, mask), (x, offset)):
        expected = layer(*arguments)
        found = accelerate(layer)
        assert found.replaced == {"": "torchvision.ops.deform_conv.DeformConv2d"}
        torch.testing.assert_close(layer(*arguments), expected)
        found.undo()
        assert type(layer) is TorchvisionsDeformConv2d


def test_both_backends(backend):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    expected = model(image())
    accelerate(model)
    torch.testing.assert_close(model(image()), expected)


def test_refuses_what_is_no_module_tree():
    with pytest.raises(TypeError, match="accelerate: model is a str; it must be"):
        accelerate("resnet18")
    with pytest.raises(TypeError, match="TopLevelTracedModule; give the module"):
        accelerate(torch.jit.trace(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4)))


def test_works_without_any_of_the_libraries():
    import subprocess
    import sys

    program = """
import sys
for name in ("torchvision", "timm", "detectron2", "mmdet", "mmcv"):
    sys.modules[name] = None
import torch, resnet_cuda
model = resnet_cuda.resnet_fpn_backbone("resnet18", width=8, fpn_channels=8).eval()
assert str(resnet_cuda.accelerate(model)) == "nothing to replace"
x = torch.randn(1, 3, 64, 64)
with torch.no_grad():
    found, expected = resnet_cuda.optimize_for_inference(model)(x), model(x)
torch.testing.assert_close(dict(found), dict(expected), rtol=1e-4, atol=1e-4)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
