"""The body, its blocks and the head: keys and values against a definition written here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import narrow_cfg, randomise
from torch import nn

from resnet_cuda import resnet

BN = ("weight", "bias", "running_mean", "running_var")


def normalise(x, state, prefix):
    weight, bias, mean, variance = (state[f"{prefix}.{name}"][:, None, None] for name in BN)
    return (x - mean) / variance.sqrt() * weight + bias


def block(x, state, prefix, stride, stride_in_1x1, groups, dilation=1):
    """He et al.'s bottleneck, by torch's own convolutions."""
    first, middle = (stride, 1) if stride_in_1x1 else (1, stride)
    out = F.relu(normalise(F.conv2d(x, state[f"{prefix}.conv1.weight"], stride=first), state, f"{prefix}.bn1"))
    out = F.conv2d(out, state[f"{prefix}.conv2.weight"], None, middle, dilation, dilation, groups)
    out = F.relu(normalise(out, state, f"{prefix}.bn2"))
    out = normalise(F.conv2d(out, state[f"{prefix}.conv3.weight"]), state, f"{prefix}.bn3")
    if f"{prefix}.downsample.0.weight" in state:
        x = normalise(
            F.conv2d(x, state[f"{prefix}.downsample.0.weight"], stride=stride), state, f"{prefix}.downsample.1"
        )
    return F.relu(out + x)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_body_equals_the_definition(stride_in_1x1, groups, backend):
    cfg = narrow_cfg("R-50-FPN", STRIDE_IN_1X1=stride_in_1x1, NUM_GROUPS=groups, WIDTH_PER_GROUP=8 // groups)
    body = randomise(resnet.ResNet(cfg).double())
    x = torch.randn(2, 3, 45, 38, dtype=torch.float64)
    state = body.state_dict()
    out = F.relu(normalise(F.conv2d(x, state["stem.conv1.weight"], stride=2, padding=3), state, "stem.bn1"))
    out = F.max_pool2d(out, 3, 2, 1)
    outputs = body(x)
    assert len(outputs) == 4
    for stage, count in enumerate((3, 4, 6, 3), 1):
        for index in range(count):
            stride = 2 if stage > 1 and index == 0 else 1
            out = block(out, state, f"layer{stage}.{index}", stride, stride_in_1x1, groups)
        assert out.abs().max() > 0
        torch.testing.assert_close(outputs[stage - 1], out)


def test_block_gradients_equal_the_definitions(backend):
    """In place, fused, and still every gradient of the definition."""
    module = randomise(resnet.BottleneckWithFixedBatchNorm(6, 4, 8, stride=2).double())
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64, requires_grad=True)
    state = {f"b.{key}": value for key, value in module.state_dict(keep_vars=True).items()}
    leaves = [x, *module.parameters()]
    expected = torch.autograd.grad(block(x, state, "b", 2, True, 1).square().sum(), leaves)
    actual = torch.autograd.grad(module(x).square().sum(), leaves)
    assert all(gradient.any() for gradient in expected)
    torch.testing.assert_close(actual, expected)


def keys_of_block(prefix, shortcut, dcn=False):
    keys = {f"{prefix}.{part}.weight" for part in ("conv1", "conv2", "conv3")}
    if dcn:
        keys -= {f"{prefix}.conv2.weight"}
        keys |= {f"{prefix}.conv2.{part}" for part in ("offset.weight", "offset.bias", "conv.weight")}
    norms = ["bn1", "bn2", "bn3"]
    if shortcut:
        keys.add(f"{prefix}.downsample.0.weight")
        norms.append("downsample.1")
    return keys | {f"{prefix}.{norm}.{name}" for norm in norms for name in BN}


@pytest.mark.parametrize(
    ("name", "counts", "returned"),
    [
        ("R-50-C4", (3, 4, 6), 1),
        ("R-50-C5", (3, 4, 6, 3), 1),
        ("R-101-C4", (3, 4, 23), 1),
        ("R-101-C5", (3, 4, 23, 3), 1),
        ("R-50-FPN", (3, 4, 6, 3), 4),
        ("R-101-FPN", (3, 4, 23, 3), 4),
        ("R-152-FPN", (3, 8, 36, 3), 4),
    ],
)
def test_keys_and_outputs_of_every_body(name, counts, returned):
    cfg = narrow_cfg(name, STAGE_WITH_DCN=(False, False, True, True))
    with torch.device("meta"):
        body = resnet.ResNet(cfg)
        outputs = body(torch.randn(1, 3, 64, 96))
    expected = {"stem.conv1.weight"} | {f"stem.bn1.{part}" for part in BN}
    for stage, count in enumerate(counts, 1):
        for index in range(count):
            expected |= keys_of_block(f"layer{stage}.{index}", index == 0, dcn=stage >= 3)
    assert set(body.state_dict()) == expected
    assert len(outputs) == returned
    last = len(counts)
    assert outputs[-1].shape == (1, 16 * 2 ** (last - 1), 64 // 2 ** (last + 1), 96 // 2 ** (last + 1))
    assert body.out_channels == outputs[-1].shape[1]


@pytest.mark.parametrize("freeze_at", [-1, 0, 1, 2, 3, 5])
def test_freeze_at_freezes_the_first_stages(freeze_at):
    cfg = narrow_cfg()
    cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT = freeze_at
    with torch.device("meta"):
        body = resnet.ResNet(cfg)
    frozen = {key.split(".")[0] for key, value in body.named_parameters() if not value.requires_grad}
    trained = {key.split(".")[0] for key, value in body.named_parameters() if value.requires_grad}
    expected = ["stem", "layer1", "layer2", "layer3", "layer4"][: max(freeze_at, 0)]
    assert frozen == set(expected)
    assert not frozen & trained


def test_freezing_more_stages_than_there_are_is_refused():
    cfg = narrow_cfg("R-50-C4")
    cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT = 5  # C4 has a stem and three stages
    with torch.device("meta"), pytest.raises(ValueError, match="FREEZE_CONV_BODY_AT is 5; it must be at most 4"):
        resnet.ResNet(cfg)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_deformable_block_starts_as_a_plain_one(modulated, groups, backend):
    """Offsets of 0; v2's mask starts at sigmoid(0) = 0.5."""
    config = {"stage_with_dcn": True, "with_modulated_dcn": modulated, "deformable_groups": groups}
    module = resnet.BottleneckWithFixedBatchNorm(8, 4, 8, dcn_config=config).double()
    for seed, norm in enumerate((module.bn1, module.bn2, module.bn3)):  # but not the offsets
        randomise(norm, seed)
    taps = 9 * groups
    assert module.conv2.offset.weight.shape == (3 * taps if modulated else 2 * taps, 4, 3, 3)
    state = {f"b.{key}": value for key, value in module.state_dict().items()}
    state["b.conv2.weight"] = state["b.conv2.conv.weight"] * (0.5 if modulated else 1)
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(module(x), block(x, state, "b", 1, True, 1))


def test_a_training_block_stores_only_inputs_of_convolutions(native):
    """The inputs of the convolutions, which are the fused outputs themselves, and the block's output: nothing else."""
    module = randomise(resnet.BottleneckWithFixedBatchNorm(8, 4, 8).double())
    x = torch.randn(2, 8, 16, 16, dtype=torch.float64, requires_grad=True)
    constants = {p.untyped_storage().data_ptr() for p in module.parameters()}
    stored = {}

    def pack(tensor):
        if tensor.dim() == 4 and tensor.untyped_storage().data_ptr() not in constants:
            stored[tensor.untyped_storage().data_ptr()] = tuple(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    assert sorted(stored.values()) == sorted([(2, 8, 16, 16), (2, 4, 16, 16), (2, 4, 16, 16), (2, 8, 16, 16)])


@pytest.mark.parametrize(
    ("stride_init", "dilation", "size"), [(None, 1, (4, 4)), (1, 1, (7, 7)), (2, 1, (4, 4)), (None, 2, (7, 7))]
)
def test_head_output_sizes(stride_init, dilation, size):
    head = resnet.ResNetHead(
        "BottleneckWithFixedBatchNorm",
        [resnet.StageSpec(4, 3, False)],
        width_per_group=8,
        stride_init=stride_init,
        res2_out_channels=16,
        dilation=dilation,
    )
    assert head.out_channels == 128
    assert head(torch.randn(5, 64, 7, 7)).shape == (5, 128, *size)
    assert head(torch.randn(0, 64, 7, 7)).shape == (0, 128, *size)
    assert {key.split(".")[0] for key in head.state_dict()} == {"layer4"}


def test_a_dilated_block_equals_the_definition(native):
    module = randomise(resnet.BottleneckWithFixedBatchNorm(4, 4, 8, stride=2, dilation=2).double())
    state = {f"b.{key}": value for key, value in module.state_dict().items()}
    x = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(module(x), block(x, state, "b", 1, True, 1, dilation=2))


def test_group_norm_takes_its_sizes_from_the_configuration():
    cfg = narrow_cfg("R-50-C4", TRANS_FUNC="BottleneckWithGN", STEM_FUNC="StemWithGN", STRIDE_IN_1X1=False)
    cfg.MODEL.GROUP_NORM.NUM_GROUPS, cfg.MODEL.GROUP_NORM.EPSILON = 4, 1e-3
    body = resnet.ResNet(cfg)
    norms = [layer for layer in body.modules() if isinstance(layer, nn.GroupNorm)]
    assert len(norms) == 1 + 3 * 13 + 3
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(4, 1e-3)}
    assert body(torch.randn(1, 3, 33, 40))[0].shape == (1, 64, 3, 3)


def test_a_block_compiles_and_exports_whole(native):
    module = randomise(resnet.BottleneckWithFixedBatchNorm(8, 4, 8, dcn_config={"stage_with_dcn": True}).double())
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))
