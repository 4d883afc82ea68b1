"""accelerate on torchvision's and timm's networks: what is replaced, that nothing changes, and how it is undone."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from helpers.networks import one_process_group
from torch import nn

import resnet_cuda
from resnet_cuda.acceleration import accelerate, restore
from resnet_cuda.layers import DeformConv2d

torchvision = pytest.importorskip("torchvision")
from torchvision.models import detection, resnet, resnet18, resnet50  # noqa: E402
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402
from torchvision.ops import DeformConv2d as TorchvisionsDeformConv2d  # noqa: E402
from torchvision.ops import FrozenBatchNorm2d  # noqa: E402
from torchvision.ops.misc import Conv2dNormActivation  # noqa: E402


def randomised(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ranges = {"weight": (0.4, 0.8), "bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3), "running_var": (0.5, 1.5)}
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "running_var", None) is not None:
                for name, (low, high) in ranges.items():
                    getattr(module, name).uniform_(low, high, generator=generator)
    return model


def image(*shape):
    torch.manual_seed(5)
    return torch.randn(*(shape or (2, 3, 64, 96)), dtype=torch.float64)


def timms(name, frozen=False):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=7)
    return timm.layers.freeze_batch_norm_2d(model) if frozen else model


MODELS = {
    "resnet18": partial(resnet18, num_classes=7),
    "resnet18, frozen": partial(resnet18, num_classes=7, norm_layer=FrozenBatchNorm2d),
    "resnet50, frozen": partial(resnet50, num_classes=7, norm_layer=FrozenBatchNorm2d),
    "timm resnet18, frozen": partial(timms, "resnet18", frozen=True),
    "timm resnet26d": partial(timms, "resnet26d"),
    "timm seresnet50, frozen": partial(timms, "seresnet50", frozen=True),
    "timm resnetaa50": partial(timms, "resnetaa50"),
}


def results(model, x):
    """Output and all gradients."""
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    output = model(x)
    output.square().sum().backward()
    gradients = {name: it.grad for name, it in model.named_parameters() if it.grad is not None}
    return {"output": output.detach(), "input": x.grad, **gradients}


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


class ScaledNorm(FrozenBatchNorm2d):
    def forward(self, x):
        return super().forward(2 * x)


class OtherBlock(resnet.BasicBlock):
    def forward(self, x):
        return super().forward(x) + 1


class MyFrozenBatchNorm2d(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))

    def forward(self, x):
        return x * self.weight[:, None, None] + 1


def test_subclasses_and_unknown_classes_stay():
    model = nn.Sequential(
        OtherBlock(4, 4, norm_layer=ScaledNorm),
        resnet.BasicBlock(4, 4, norm_layer=ScaledNorm),
        MyFrozenBatchNorm2d(4),
        DeformConv2d(4, 4, 1),
    ).double()
    randomised(model[:2])
    x = image(1, 4, 8, 8)
    expected = model[:3](x)
    found = accelerate(model)
    assert list(found.replaced) == ["1"]
    assert sorted(found.left) == ["0", "0.bn1", "0.bn2", "1.bn1", "1.bn2", "2"]
    assert found.left["0"] == "OtherBlock is a subclass of torchvision.models.resnet.BasicBlock"
    assert "MyFrozenBatchNorm2d is of no known class" in found.left["2"]
    assert "4 left alone: ScaledNorm is a subclass" in str(found)
    torch.testing.assert_close(model[:3](x), expected)


def test_a_forward_that_is_set_stays():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    norm, block = model.layer1[0].bn1, model.layer2[0]
    norm.forward = lambda x: x * 3
    block.forward = lambda x, original=block.forward: original(x) * 2
    expected = model(image())
    found = accelerate(model)
    assert found.left == {
        "layer1.0.bn1": "a forward is set on a FrozenBatchNorm2d",
        "layer2.0": "a forward is set on a BasicBlock",
    }
    torch.testing.assert_close(model(image()), expected)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "layer",
    [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        "layer2",
        "layer2.0",
        "layer2.0.conv1",
        "layer2.0.bn1",
        "layer2.0.bn2",
        "layer2.0.relu",
        "layer2.0.downsample",
        "layer2.0.downsample.1",
    ],
)
def test_hooks_see_and_change_what_they_do_in_torchvisions(layer, when):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    hooked = model.get_submodule(layer)
    seen = []

    def hook(module, arguments, output):
        seen.append(output.clone())
        return output * 1.5

    def run():
        seen.clear()
        return model(image()), list(seen)

    def register():
        return hooked.register_forward_hook(hook)

    handle = register()
    expected = run()
    if when == "after":
        handle.remove()
    accelerate(model)
    if when == "after":
        register()
    torch.testing.assert_close(run(), expected)


def relus_run(model, x):
    """How many modules of class ReLU a call runs."""
    called = []
    original = nn.ReLU.forward
    nn.ReLU.forward = lambda self, input: called.append(self) or original(self, input)
    try:
        output = model(x)
    finally:
        nn.ReLU.forward = original
    return output, len(called)


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


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
def test_symbolic_trace(norm):
    model = resnet18(num_classes=7, norm_layer=norm)
    model.conv1 = nn.Sequential(Conv2dNormActivation(3, 8, norm_layer=norm), nn.Conv2d(8, 64, 3))
    model = randomised(model).double().eval()
    expected = model(image())
    accelerate(model)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(image()), expected)


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


def test_another_activation():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    model.layer1[0].relu = nn.SiLU()
    model.relu = nn.SiLU()
    expected = model(image())
    accelerate(model)
    torch.testing.assert_close(model(image()), expected)


def test_tensors_are_shared_and_written_to_by_both():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    accelerate(model)
    before = model(image())
    model.layer1[0].bn1.running_mean.add_(1)
    changed = model(image())
    assert (before - changed).abs().max() > 1e-3
    torch.testing.assert_close(restore(model)(image()), changed)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_are_accelerated_and_restored(how):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    types = [type(it) for it in model.modules()]
    accelerate(model)
    other = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert [type(it) for it in other.modules()] == [type(it) for it in model.modules()] != types
    torch.testing.assert_close(other(image()), model(image()))
    assert restore(other) is other
    assert [type(it) for it in other.modules()] == types


def test_compiled():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).eval()
    x = image().float()
    expected = model(x).detach()
    accelerate(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = compiled(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert model.layer1[0].conv1.weight.grad.abs().max() > 0


def test_data_parallel(tmp_path):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double()
    expected = results(model, image())
    with one_process_group(tmp_path):
        parallel = nn.parallel.DistributedDataParallel(model)
        found = accelerate(parallel)
        assert "module.layer1.0" in found.replaced
        gradients = results(parallel, image())
    torch.testing.assert_close({name.removeprefix("module."): it for name, it in gradients.items()}, expected)


def test_optimized_afterwards():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    expected = model(image()).detach()
    accelerate(model)
    optimized = resnet_cuda.optimize_for_inference(model)
    assert len(optimized.optimization_report.folded) == 20 and "layer1" in optimized.optimization_report.fused
    torch.testing.assert_close(optimized(image()), expected)


def test_both_backends(backend):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    expected = model(image())
    accelerate(model)
    torch.testing.assert_close(model(image()), expected)


def test_sixteen_bit_activations_stay_so_under_autocast():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).eval()
    x = image().float()
    exact = model(x).detach()
    accelerate(model)
    dtypes = []
    model.layer1[0].register_forward_hook(lambda module, arguments, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    assert dtypes == [torch.bfloat16]
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.05 * exact.abs().max().item())


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
