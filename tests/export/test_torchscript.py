"""torch.jit.script and torch.jit.trace of backbones and detectors: eager's values and gradients, from a file, too.

And torch.jit.script of copies that optimize_for_inference made, this package's and other libraries' models.
"""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from helpers.networks import gradients, levels_of, loss_of, narrow_cfg, randomise
from helpers.processes import run_python
from helpers.tiny_networks import detector, tiny
from torch import nn

from resnet_cuda import build_backbone, optimize_for_inference, resnet_fpn_backbone
from resnet_cuda.layers import DeformConv2d, DFConv2d, FrozenBatchNorm2d
from resnet_cuda.resnet import ResNetHead, StageSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # torch.jit is deprecated; FrozenBN without statistics
    pytest.mark.usefixtures("registered"),
]

GROUPS = {"TRANS_FUNC": "BottleneckWithGN", "STEM_FUNC": "StemWithGN", "RES2_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 32}
MODULATED = {"STAGE_WITH_DCN": (False, True, False, False), "WITH_MODULATED_DCN": True, "DEFORMABLE_GROUPS": 2}
NETWORKS = {
    "plain": lambda: tiny(dcn=False),
    "v1": lambda: tiny(modulated=False),
    "v2": lambda: tiny(bottleneck=True, groups=2),
    "bn": lambda: tiny(norm="bn"),
    "gn": lambda: tiny(norm="gn", bottleneck=True),
    "deep stem": lambda: randomise(resnet_fpn_backbone("resnet18d", width=8, fpn_channels=8, fpn_norm_layer="bn")),
    "cfg C4": lambda: randomise(build_backbone(narrow_cfg("R-50-C4", **MODULATED))),
    "cfg FPN": lambda: randomise(build_backbone(narrow_cfg("R-50-FPN", BACKBONE_OUT_CHANNELS=8))),
    "cfg RetinaNet": lambda: randomise(build_backbone(narrow_cfg("R-50-FPN-RETINANET", BACKBONE_OUT_CHANNELS=8))),
    "cfg GN": lambda: build_backbone(narrow_cfg("R-50-C4", STEM_OUT_CHANNELS=32, **GROUPS)),
}


def scripted(network, x):
    return torch.jit.script(network)


def traced(network, x):
    return torch.jit.trace(network, x, strict=False)


def assert_same(got, expected):
    got, expected = levels_of(got), levels_of(expected)
    assert len(got) == len(expected)
    for one, right in zip(got, expected, strict=True):
        assert right.any()
        torch.testing.assert_close(one, right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize("make", [scripted, traced])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_from_a_file_for_other_sizes(name, make):
    network = NETWORKS[name]().eval()
    file = io.BytesIO()
    torch.jit.save(make(network, torch.randn(1, 3, 64, 64)), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for shape in ((1, 3, 64, 64), (2, 3, 71, 45)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert_same(loaded(x), network(x))


@pytest.mark.parametrize("make", [scripted, traced])
@pytest.mark.parametrize("name", ["v2", "bn", "cfg C4"])
def test_gradients_in_training(name, make):
    network = NETWORKS[name]().train()
    x = torch.randn(2, 3, 64, 64)
    module = make(network, x)
    loss_of(network(x)).backward()
    expected = gradients(network)
    for _ in range(3):  # TorchScript optimises after the first calls
        loss_of(module(x)).backward()
        got = gradients(module)
        assert got.keys() == expected.keys()
        for key, right in expected.items():
            torch.testing.assert_close(got[key], right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))


def test_scripting_leaves_the_network_as_it_was():
    network = tiny()
    before = {name: type(module) for name, module in network.named_modules()}
    torch.jit.script(network)
    assert {name: type(module) for name, module in network.named_modules()} == before
    with pytest.warns(UserWarning, match="never given statistics"):
        network = torch.jit.script(module := tiny().train()) and module
        for layer in network.modules():
            if isinstance(layer, FrozenBatchNorm2d):
                layer.load_state_dict(FrozenBatchNorm2d(layer.num_features).state_dict())
        network(torch.randn(1, 3, 64, 64))


def test_a_file_needs_the_package_only(tmp_path):
    network, x = tiny().eval(), torch.randn(1, 3, 50, 70)
    torch.jit.save(torch.jit.script(network), tmp_path / "scripted.pt")
    torch.jit.save(torch.jit.trace(network, x, strict=False), tmp_path / "traced.pt")
    torch.jit.save(torch.jit.script(optimize_for_inference(network)), tmp_path / "optimized.pt")
    torch.save((x, [it.detach() for it in network(x).values()]), tmp_path / "expected.pt")
    code = (
        "import sys, torch, resnet_cuda\n"
        "x, expected = torch.load('expected.pt')\n"
        "for name in ('scripted.pt', 'traced.pt', 'optimized.pt'):\n"
        "    got = torch.jit.load(name)(x)\n"
        "    torch.testing.assert_close(list(got.values()), expected, rtol=1e-4, atol=1e-4)\n"
        "assert 'torchvision' not in sys.modules\n"
    )
    (tmp_path / "load.py").write_text(code)
    result = run_python(tmp_path / "load.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_whole_detector():
    pytest.importorskip("torchvision")
    model = detector(tiny(bottleneck=True))
    images = [torch.rand(3, 60, 80)]  # in a batch the smaller image's padding makes anchors of equal scores
    module = torch.jit.script(model)
    with torch.no_grad():
        expected, (_, got) = model(images), module(images)
    assert len(expected[0]["boxes"])
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    masks = torch.ones(1, 60, 80, dtype=torch.uint8)
    targets = [{"boxes": torch.tensor([[5.0, 5, 40, 40]]), "labels": torch.tensor([1]), "masks": masks}]
    losses = []
    for one in (model.train(), module.train()):
        torch.manual_seed(1)  # proposals are sampled
        result = one(images, [dict(target) for target in targets])
        losses.append(result if isinstance(result, dict) else result[0])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-3)


def test_layers_and_head():
    x, offset, mask = torch.randn(2, 4, 6, 7), torch.randn(2, 18, 6, 7), torch.rand(2, 9, 6, 7)
    conv = DeformConv2d(4, 6, 3, padding=1)
    torch.testing.assert_close(torch.jit.script(conv)(x, offset), conv(x, offset))
    torch.testing.assert_close(torch.jit.script(conv)(x, offset, mask), conv(x, offset, mask))
    layer = randomise(DFConv2d(4, 6, with_modulated_dcn=False, bias=True))
    torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))
    head = randomise(
        ResNetHead("BottleneckWithFixedBatchNorm", [StageSpec(4, 1, False)], width_per_group=8, res2_out_channels=8)
    ).eval()
    rois = torch.randn(3, 32, 6, 6)
    torch.testing.assert_close(torch.jit.script(head)(rois), head(rois))


def test_an_offset_of_other_groups_is_refused_when_scripted():
    layer = DFConv2d(4, 6, deformable_groups=2)
    with pytest.raises(Exception, match="offset must have 2"):
        torch.jit.script(layer.conv)(torch.randn(2, 4, 6, 7), torch.randn(2, 18, 6, 7), torch.rand(2, 9, 6, 7))


class Shifted(FrozenBatchNorm2d):
    """A norm of a user's, which the blocks must not take for ours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight[:, None, None] + 1.0


def test_a_norm_with_another_forward_and_torchvisions_own():
    norms = [Shifted, nn.BatchNorm2d]
    try:
        from torchvision.ops import FrozenBatchNorm2d as Torchvisions
    except ImportError:
        pass
    else:
        norms.append(Torchvisions)
    for norm in norms:
        network = tiny(norm=norm).eval()
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad(), warnings.catch_warnings():
            assert_same(torch.jit.script(network)(x), network(x))


def tensors_of(output):
    """Of an output of any kind, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in tensors_of(part)]


def from_a_file(module):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    return torch.jit.load(file)


@torch.no_grad()
def assert_scripted_as_optimized(optimized, *shapes):
    module = from_a_file(optimized)
    for shape in shapes:
        x = torch.randn(shape)
        for _ in range(3):  # TorchScript optimises after the first calls
            got = tensors_of(module(x))
        for one, right in zip(got, tensors_of(optimized(x)), strict=True):
            assert right.any()
            torch.testing.assert_close(one, right, rtol=0, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_optimized_copy(name):
    network = NETWORKS[name]().eval()
    assert_scripted_as_optimized(optimize_for_inference(network), (1, 3, 64, 64), (2, 3, 71, 45))


def test_an_optimized_head():
    stages = [StageSpec(4, 2, False)]
    dcn = {"stage_with_dcn": True, "with_modulated_dcn": True}
    for config in (None, dcn):
        head = ResNetHead(
            "BottleneckWithFixedBatchNorm", stages, width_per_group=8, res2_out_channels=8, dcn_config=config
        )
        assert_scripted_as_optimized(optimize_for_inference(randomise(head).eval()), (3, 32, 6, 6))


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "v1", "v2", "deep stem", "cfg FPN"])
def test_an_optimized_copy_in_bfloat16(name):
    """Its convolutions round before the residual sum and the optimized copy's after it: each as near to float64."""
    network = NETWORKS[name]().eval().double()
    x = torch.randn(2, 3, 64, 96).bfloat16()
    exact = levels_of(network(x.double()))
    optimized = optimize_for_inference(network.float()).bfloat16()
    errors = []
    for one in (from_a_file(optimized), optimized):
        levels = levels_of(one(x))
        assert {level.dtype for level in levels} == {torch.bfloat16}
        pairs = zip(levels, exact, strict=True)
        errors.append(max(float((level.double() - right).abs().max() / right.abs().max()) for level, right in pairs))
    assert errors[0] <= 1.5 * errors[1] + torch.finfo(torch.bfloat16).eps, errors


def test_an_optimized_detector():
    pytest.importorskip("torchvision")
    model = optimize_for_inference(detector(tiny(bottleneck=True)))
    images = [torch.rand(3, 60, 80)]
    with torch.no_grad():
        expected, (_, got) = model(images), from_a_file(model)(images)
    assert len(expected[0]["boxes"])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def foreign(name):
    library, _, name = name.partition(" ")
    pytest.importorskip(library)
    if library == "torchvision":
        import torchvision.models

        return getattr(torchvision.models, name)(num_classes=7)
    import timm

    return timm.create_model(name, **({"features_only": True} if name == "resnet26d" else {"num_classes": 7}))


@pytest.mark.parametrize("name", ["torchvision resnet18", "torchvision resnet50", "timm resnet18", "timm resnet26d"])
def test_other_libraries_networks_optimized(name):
    assert_scripted_as_optimized(optimize_for_inference(randomise(foreign(name).eval())), (2, 3, 64, 96))


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def test_torchvisions_detectors_optimized(name):
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    options = {"min_size": 64, "max_size": 96, "rpn_post_nms_top_n_test": 10, "box_detections_per_img": 3}
    model = getattr(detection, name)(
        weights=None, weights_backbone=None, num_classes=3, box_score_thresh=0.0, **options
    )
    model = optimize_for_inference(randomise(model).eval())
    images = [torch.rand(3, 60, 80)]
    with torch.no_grad():
        expected, (_, got) = model(images), from_a_file(model)(images)
    assert len(expected[0]["boxes"])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_scripting_leaves_an_optimized_copy_as_it_was():
    optimized, x = optimize_for_inference(tiny().eval()), torch.randn(1, 3, 64, 64)
    before = {name: type(module) for name, module in optimized.named_modules()}
    with torch.no_grad():
        expected = levels_of(optimized(x))
        torch.jit.script(optimized)
        assert {name: type(module) for name, module in optimized.named_modules()} == before
        torch.testing.assert_close(levels_of(optimized(x)), expected, rtol=0, atol=0)
