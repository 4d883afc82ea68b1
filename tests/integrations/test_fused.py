"""What the integrations' blocks compute with: when a norm is fused and in place, and that the result is the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from same import assert_near, randomise
from torch import nn

from resnet_cuda import layers
from resnet_cuda.integrations._fused import fused_layer
from resnet_cuda.ops import frozen_bn


@pytest.fixture
def calls(monkeypatch):
    """The arguments of every fused pass; the last one says whether it was in place."""
    made = []
    plain = frozen_bn._run
    monkeypatch.setattr(frozen_bn, "_run", lambda *arguments: made.append(arguments) or plain(*arguments))
    return made


def parts(norm, deformable=False, modulated=False):
    torch.manual_seed(0)
    conv = layers.Conv2d(4, 6, 3, padding=1, bias=False)
    offset = None
    if deformable:
        conv = (layers.ModulatedDeformConv if modulated else layers.DeformConv)(4, 6, 3, padding=1, deformable_groups=2)
        offset = layers.Conv2d(4, (54 if modulated else 36), 3, padding=1)
    module = nn.ModuleDict({"conv": conv, "norm": norm, **({"offset": offset} if deformable else {})})
    randomise(module)
    return conv.double(), norm.double(), None if offset is None else offset.double()


def plain(conv, norm, x, residual, relu, offset):
    if offset is None:
        out = conv(x)
    elif isinstance(conv, layers.ModulatedDeformConv):
        first, second, logits = offset(x).chunk(3, dim=1)
        out = conv(x, torch.cat([first, second], dim=1), logits.sigmoid())
    else:
        out = conv(x, offset(x))
    out = norm(out)
    out = out if residual is None else out + residual
    return F.relu(out) if relu else out


def frozen_batch_norm(channels):
    return nn.BatchNorm2d(channels).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "fused"),
    [
        (layers.FrozenBatchNorm2d, True),
        (frozen_batch_norm, True),
        (lambda channels: nn.SyncBatchNorm(channels).eval().requires_grad_(False), True),
        (lambda channels: nn.BatchNorm2d(channels).eval(), False),
        (lambda channels: nn.BatchNorm2d(channels).requires_grad_(False), False),
        (lambda channels: nn.BatchNorm2d(channels, track_running_stats=False).eval().requires_grad_(False), False),
        (lambda channels: nn.BatchNorm2d(channels, affine=False).eval(), False),
        (lambda channels: nn.GroupNorm(2, channels), False),
    ],
    ids=["frozen", "constant BN", "constant SyncBN", "trained", "training", "no statistics", "no weight", "GN"],
)
@pytest.mark.parametrize(("deformable", "modulated"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_fused_where_the_norm_is_a_constant(make, fused, deformable, modulated, residual, relu, calls):
    conv, norm, offset = parts(make(6), deformable, modulated)
    results = []
    for function in (fused_layer, plain):
        torch.manual_seed(1)
        x = torch.randn(2, 4, 5, 7, dtype=torch.float64, requires_grad=True)
        added = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True) if residual else None
        conv.zero_grad()
        before = len(calls)
        out = function(conv, norm, x, added, relu, offset)
        if function is fused_layer:
            assert [arguments[-1] for arguments in calls[before:]] == ([True] if fused else [])
        (out * torch.linspace(1, 2, 7, dtype=torch.float64)).sum().backward()
        gradients = [x.grad, conv.weight.grad.clone(), *([added.grad] if residual else [])]
        results.append([out, *gradients])
    for got, expected in zip(*results, strict=True):
        assert_near(got, expected, "a result", 1e-10)


def test_a_trained_norm_is_fused_where_no_gradient_is_recorded(calls):
    conv, norm, _ = parts(nn.BatchNorm2d(6).eval())
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        assert_near(fused_layer(conv, norm, x), plain(conv, norm, x, None, True, None), "result", 1e-12)
    assert len(calls) == 1


@pytest.mark.parametrize("make", [layers.FrozenBatchNorm2d, frozen_batch_norm])
def test_a_hook_on_the_norm_sees_its_result(make, calls):
    conv, norm, _ = parts(make(6))
    seen = []
    norm.register_forward_hook(lambda *call: seen.append(call[-1]))
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    out = fused_layer(conv, norm, x)
    assert seen[0].min() < 0 <= out.min()
    assert not any(arguments[-1] for arguments in calls), "overwritten in place"


@pytest.mark.parametrize("make", [layers.FrozenBatchNorm2d, frozen_batch_norm])
def test_a_hook_on_the_convolution_keeps_its_result(make, calls):
    conv, norm, _ = parts(make(6))
    seen = []
    conv.register_forward_hook(lambda *call: seen.append(call[-1]))
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    fused_layer(conv, norm, x)
    assert torch.equal(seen[0], F.conv2d(x, conv.weight, padding=1))
    assert [arguments[-1] for arguments in calls] == [False]


@pytest.mark.parametrize("mode", ["grad", "jvp"])
def test_transforms_see_a_constant_norms_weight(mode):
    """A weight that torch.func differentiates has no requires_grad to be seen by; its derivative must not be lost."""
    conv, norm, _ = parts(frozen_batch_norm(6))
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return fused_layer(conv, self.norm, x)

    block = Block()
    weights = dict(block.named_parameters())

    def total(weights):
        return torch.func.functional_call(block, weights, (x,)).sum()

    if mode == "grad":
        assert all(gradient.any() for gradient in torch.func.grad(total)(weights).values())
    else:
        _, derivative = torch.func.jvp(
            total, (weights,), ({name: torch.ones_like(it) for name, it in weights.items()},)
        )
        assert derivative != 0


def test_without_a_norm():
    conv, _, _ = parts(nn.BatchNorm2d(6))
    x, residual = torch.randn(1, 4, 5, 7, dtype=torch.float64), torch.randn(1, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(fused_layer(conv, None, x, residual), F.relu(conv(x) + residual))


@pytest.mark.parametrize("make", [layers.FrozenBatchNorm2d, frozen_batch_norm, nn.BatchNorm2d])
def test_compiles_into_one_graph(make):
    conv, norm, offset = parts(make(6), deformable=True, modulated=True)
    x = torch.randn(1, 4, 5, 7, dtype=torch.float64)
    residual = torch.randn(1, 6, 5, 7, dtype=torch.float64)
    compiled = torch.compile(fused_layer, fullgraph=True, backend="aot_eager")
    expected = plain(conv, norm, x, residual, True, offset)
    assert_near(compiled(conv, norm, x, residual, True, offset), expected, "compiled", 1e-12)
