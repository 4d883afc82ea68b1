"""What one hook keeps, of any module and alone, is never overwritten: the modules around it stay fused and in place."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.accelerated import randomised
from helpers.networks import torchvision_style
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from resnet_cuda import accelerate, optimize_for_inference


def own(name: str = "resnet50", dcn: bool = False) -> nn.Module:
    return torchvision_style(dcn, name, width=16).eval()


def optimized(name: str = "resnet50", dcn: bool = False) -> nn.Module:
    return optimize_for_inference(own(name, dcn))


def torchvisions(name: str = "resnet50") -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    model = randomised(models.get_model(name, weights=None, width_per_group=8, num_classes=7)).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # torchvision's own overwrites what a hook on the norm has kept
    return model


def accelerated(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    assert accelerate(model).replaced
    return model


NETWORKS = {
    "optimized": optimized,
    "optimized deformable": lambda: optimized(dcn=True),
    "optimized basic blocks": lambda: optimized("resnet18", dcn=True),
    "optimized torchvision": lambda: optimize_for_inference(torchvisions()),
    "own": own,
    "own deformable": lambda: own(dcn=True),
}


def image() -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class Kept:
    """A hook of either kind; ``overwritten()`` says whether a tensor that it was given has changed since."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __call__(self, module: nn.Module, arguments: tuple, *output: object) -> None:
        self.pairs += [(it, it.clone()) for it in (*arguments, *output) if isinstance(it, Tensor)]

    def overwritten(self) -> bool:
        return not all(torch.equal(tensor, copied) for tensor, copied in self.pairs)


@torch.no_grad()
def overwritten(network: nn.Module, kind: str) -> set[str]:
    """The modules of which a hook, registered on that module alone, has kept something that is then overwritten."""
    found, seen, x = set(), 0, image()
    for name, module in network.named_modules():
        kept = Kept()
        with getattr(module, f"register_{kind}")(kept):
            network(x)
        seen += len(kept.pairs) > 0
        if kept.overwritten():
            found.add(name)
    assert seen > 20
    return found


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook"])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_module(name, kind, native):
    assert overwritten(NETWORKS[name](), kind) == set()


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook"])
def test_one_module_of_an_accelerated_network(kind, native):
    """Only what torchvision overwrites itself: its blocks add the shortcut in place."""
    model = torchvisions()
    assert overwritten(accelerated(model), kind) <= overwritten(model, kind)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
@pytest.mark.parametrize("name", NETWORKS)
def test_global_hooks(name, register, native):
    network, kept = NETWORKS[name](), Kept()
    with register(kept), torch.no_grad():
        network(image())
    assert len(kept.pairs) > 40
    assert not kept.overwritten()


@torch.no_grad()
def test_a_block_is_overwritten_where_no_hook_keeps_it(native, monkeypatch):
    """What the rules above are for: most residual sums of an optimized network allocate nothing."""
    from resnet_cuda.inference.convolution import FoldedConv2d

    network, sums, original = optimized(), [], FoldedConv2d.forward

    def record(self, input, residual=None, overwrite=False):
        if residual is not None:
            sums.append(overwrite)
        return original(self, input, residual, overwrite)

    monkeypatch.setattr(FoldedConv2d, "forward", record)
    network(image())
    assert sums == [True] * (16 + 3)


@torch.no_grad()
def test_a_replaced_convolution_of_an_optimized_block(native):
    """As adapters wrap it: the wrapper keeps what it is given."""

    class Keeping(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.kept = inner, Kept()

        def forward(self, *arguments):
            result = self.inner(*arguments)
            self.kept(self, arguments, result)
            return result

    network = optimized()
    expected = network(image())
    block = network.body.layer1[1]
    block.conv1 = Keeping(block.conv1)
    torch.testing.assert_close(network(image()), expected)
    assert not block.conv1.kept.overwritten()


@torch.no_grad()
def test_a_replaced_block_of_an_optimized_stage(native):
    """It takes one argument, and its result may be anybody's."""
    network, kept = optimized(), Kept()
    expected = network(image())

    class Keeping(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            result = self.inner(x)
            kept(self, (x,), result)
            return result

    network.body.layer1[1] = Keeping(network.body.layer1[1])
    torch.testing.assert_close(network(image()), expected)
    assert not kept.overwritten()
