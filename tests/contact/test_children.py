"""Code that takes a body apart or replaces activations or pooling gets what it gets of torchvision's body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.networks import randomise, torchvision_style
from torch import Tensor, nn

from resnet_cuda import optimize_for_inference

resnet = pytest.importorskip("torchvision.models.resnet")
utils = pytest.importorskip("torchvision.models._utils")
misc = pytest.importorskip("torchvision.ops.misc")


def with_other_activations(body: nn.Module) -> None:
    for module in [*body.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(0.3))


FORMS = {"eager": lambda it: it, "optimized": optimize_for_inference}
CHANGES: dict[str, Callable[[Any], None]] = {
    "none": lambda body: None,
    "leaky": lambda body: setattr(body, "relu", nn.LeakyReLU(0.3)),
    "all leaky": with_other_activations,
    "one leaky": lambda body: setattr(body.layer2[0], "relu", nn.LeakyReLU(0.3)),
    "no pooling": lambda body: setattr(body, "maxpool", nn.Identity()),
    "average": lambda body: setattr(body, "maxpool", nn.AvgPool2d(2)),
}
STAGES = ("layer1", "layer2", "layer3", "layer4")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(3))


def bodies(bottlenecks: bool = False) -> tuple[Any, Any]:
    """torchvision's body and this package's, with the same values."""
    ours = resnet_cuda_body("resnet50" if bottlenecks else "resnet18")
    kind, counts = (resnet.Bottleneck, [3, 4, 6, 3]) if bottlenecks else (resnet.BasicBlock, [2, 2, 2, 2])
    theirs = resnet.ResNet(kind, counts, norm_layer=misc.FrozenBatchNorm2d)
    theirs = utils.IntermediateLayerGetter(theirs, {stage: stage for stage in STAGES})
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval(), ours.eval()


def resnet_cuda_body(name: str = "resnet18") -> Any:
    return torchvision_style(dcn=False, name=name, width=64).body


def close(got: Any, expected: Any) -> None:
    torch.testing.assert_close(list(got), list(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("bottlenecks", [False, True])
def test_forward_and_children_in_order(bottlenecks, change, form, x, backend):
    theirs, ours = bodies(bottlenecks)
    if form == "eager":
        assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    CHANGES[change](theirs)
    CHANGES[change](ours)
    ours = FORMS[form](ours)
    names = [name for name, _ in theirs.named_children()]
    with torch.no_grad():
        close(ours(x).values(), theirs(x).values())
        close([nn.Sequential(*ours.children())(x)], [nn.Sequential(*theirs.children())(x)])
    assert [name for name, _ in ours.named_children()] == names


@pytest.mark.parametrize("form", FORMS)
def test_an_intermediate_layer_getter_around_the_body(form, x, native):
    theirs, ours = bodies()
    wanted = {"layer1": "a", "layer3": "b"}
    with torch.no_grad():
        got = utils.IntermediateLayerGetter(FORMS[form](ours), wanted)(x)
        close(got.values(), utils.IntermediateLayerGetter(theirs, wanted)(x).values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("bottlenecks", [False, True])
def test_scripted(bottlenecks, change, form, x, native):
    theirs, ours = bodies(bottlenecks)
    CHANGES[change](theirs)
    CHANGES[change](ours)
    with torch.no_grad():
        close(torch.jit.script(FORMS[form](ours))(x).values(), theirs(x).values())


@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("part", ["", "layer1.0"])
def test_scripted_subclasses_with_lists_of_their_own(part, leaky, x, native):
    _, ours = bodies()
    if leaky:
        with_other_activations(ours)
    module = ours.get_submodule(part)

    class Mine(type(module)):
        __constants__ = ("answer",)
        __jit_unused_properties__ = ("unscriptable",)
        answer = 42

        @property
        def unscriptable(self):
            return object()

    module.__class__ = Mine
    with torch.no_grad():
        close(torch.jit.script(ours)(x).values(), ours(x).values())


@pytest.mark.parametrize("name", ["resnet18d", "resnet18"])
@pytest.mark.parametrize("norm", ["frozen_bn", "bn", "gn"])
def test_children_in_order_are_the_body(name, norm, x, native):
    body = torchvision_style(dcn=True, name=name, norm=norm).body.eval()
    randomise(body)
    with torch.no_grad():
        close([nn.Sequential(*body.children())(x)], [[*body(x).values()][-1]])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["relu", "maxpool", "layer1.0.relu", "layer3.1.relu"])
@pytest.mark.parametrize("bottlenecks", [False, True])
def test_hooks(bottlenecks, name, form, x, native):
    theirs, ours = bodies(bottlenecks)
    seen = []
    for body in (theirs, ours):
        body.get_submodule(name).register_forward_hook(lambda module, given, result: seen.append(result.clone()))
        with torch.no_grad():
            (body if body is theirs else FORMS[form](body))(x)
    half = len(seen) // 2  # a block calls its activation two or three times
    assert half == (1 if "layer" not in name else 3 if bottlenecks else 2)
    close(seen[half:], seen[:half])
