"""Hooks see what torchvision's network shows at the same module, and what they keep is never overwritten."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import assert_equal, cfg_built, gradients, levels_of, loss_of, randomise, torchvision_style
from torch import nn

from resnet_cuda.layers import FrozenBatchNorm2d

detection = pytest.importorskip("torchvision.models.detection.backbone_utils")
misc = pytest.importorskip("torchvision.ops.misc")

WATCHED = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample", "downsample.0", "downsample.1")
NAMES = ("resnet18", "resnet50")


def theirs(name: str) -> nn.Module:
    network = detection.resnet_fpn_backbone(
        backbone_name=name, weights=None, trainable_layers=5, norm_layer=misc.FrozenBatchNorm2d
    )
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # torchvision's own overwrites what a hook on the norm has kept
    return network


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    own = torchvision_style(False, name, width=64)
    peer = theirs(name)
    # The pyramids differ in their number of channels, which is none of this file's business.
    peer.body.load_state_dict(own.body.state_dict())
    return own.body.eval(), peer.body.eval()


def watched_modules(body: nn.Module) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in body.named_modules()
        if name in ("conv1", "bn1", "layer1", "layer2")
        or (name.startswith(("layer1", "layer2")) and name.split(".", 2)[-1] in WATCHED)
        or (name.startswith(("layer1", "layer2")) and name.count(".") == 1)
    }


@pytest.fixture
def x():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def seen_forward(body: nn.Module, x: torch.Tensor, copy: bool) -> dict[str, torch.Tensor]:
    """Inputs and outputs of the watched modules; without ``copy`` as whoever keeps the tensors finds them afterwards."""
    seen = {}
    handles = []
    for name, module in watched_modules(body).items():

        def keep(module, arguments, output, name=name):
            seen[f"{name} output"] = output.detach().clone() if copy else output
            for index, argument in enumerate(arguments):
                seen[f"{name} input {index}"] = argument.detach().clone() if copy else argument

        handles.append(module.register_forward_hook(keep))
    output = body(x)
    for handle in handles:
        handle.remove()
    return seen | {f"level {name}": level for name, level in output.items()}


@pytest.mark.parametrize("gradient", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", NAMES)
def test_forward_hooks_on_everything(name, gradient, x, backend):
    own, peer = pair(name)
    with torch.set_grad_enabled(gradient):
        # torchvision's sum with the shortcut overwrites what a hook on the last norm has kept.
        expected = seen_forward(peer, x, copy=True)
        assert_equal(seen_forward(own, x, copy=True), expected, rtol=1e-4, atol=1e-5)
        assert_equal(seen_forward(own, x, copy=False), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["conv1", "layer1.0.conv1", "layer1.1.conv2", "layer2.0.downsample.0", "layer1.0.bn2"])
def test_a_hook_on_one_module_alone(name, x, backend):
    """The others stay fused: nothing but the watched tensor changes hands."""
    own, peer = pair("resnet50")
    kept = []
    for body in (own, peer):
        body.get_submodule(name).register_forward_hook(lambda module, arguments, output: kept.append(output))
        with torch.no_grad():
            body(x)
    torch.testing.assert_close(*kept, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_full_backward_hooks(name, x, backend):
    """Grad-CAM by modules: gradients of inputs and outputs."""
    seen = []
    last_norm = "bn2" if name == "resnet18" else "bn3"  # where torchvision's sum in place does not allow one
    for body in pair(name):
        kept = {}
        for where, module in watched_modules(body).items():
            if where.endswith(last_norm):
                continue

            def keep(module, grad_input, grad_output, where=where, kept=kept):
                kept[f"{where} output"] = grad_output[0]
                kept[f"{where} input"] = grad_input[0]

            module.register_full_backward_hook(keep)
        loss_of(body(x.clone().requires_grad_())).backward()
        kept |= gradients(body)
        seen.append(kept)
    # Sums over many pixels, in another order.
    largest = {key: float(value.abs().max()) for key, value in seen[1].items()}
    assert seen[0].keys() == seen[1].keys()
    for key, right in seen[1].items():
        torch.testing.assert_close(seen[0][key], right, rtol=1e-3, atol=1e-4 * largest[key], msg=lambda t, k=key: k + t)


@pytest.mark.parametrize("name", NAMES)
def test_full_backward_hooks_on_the_last_norm(name, x, backend):
    body, _ = pair(name)
    loss_of(body(x)).backward()
    expected = gradients(body)
    kept = []
    norm = body.layer2[1].get_submodule("bn2" if name == "resnet18" else "bn3")
    norm.register_full_backward_hook(lambda module, grad_input, grad_output: kept.extend((*grad_input, *grad_output)))
    loss_of(body(x)).backward()
    assert_equal(gradients(body), expected, rtol=1e-3, atol=1e-6)
    scale, _ = norm.scale_and_shift()
    torch.testing.assert_close(kept[0], kept[1] * scale[:, None, None])
    assert kept[0].any()


def test_tensor_hooks_on_kept_outputs(x, backend):
    """Grad-CAM by a hook on the tensor that a forward hook was given."""
    seen = []
    for body in pair("resnet50"):
        kept = {}

        def keep(module, arguments, output, kept=kept):
            kept["activation"] = output
            output.register_hook(lambda grad: kept.__setitem__("gradient", grad))

        body.layer2[0].conv2.register_forward_hook(keep)
        loss_of(body(x)).backward()
        seen.append(kept)
    torch.testing.assert_close(seen[0]["activation"], seen[1]["activation"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[0]["gradient"], seen[1]["gradient"], rtol=1e-3, atol=1e-6)


def test_global_hooks(x, backend):
    own, peer = pair("resnet18")
    seen = []
    for body in (own, peer):
        names = {module: name for name, module in body.named_modules() if isinstance(module, nn.Conv2d)}
        kept = {}
        handle = nn.modules.module.register_module_forward_hook(
            lambda module, arguments, output, kept=kept, names=names: (
                kept.__setitem__(names[module], output) if module in names else None
            )
        )
        with torch.no_grad():
            body(x)
        handle.remove()
        seen.append(kept)
    assert len(seen[0]) == 20
    assert_equal(*seen, rtol=1e-4, atol=1e-5)


def changes_output(module, arguments, output):
    return output * 2


def changes_input(module, arguments):
    return (arguments[0] + 1,)


@pytest.mark.parametrize("name", ["conv1", "layer1.0.conv2", "layer1.0.bn1", "layer1.0.bn3", "layer2.0.downsample"])
def test_hooks_that_change_values(name, x, backend):
    own, peer = pair("resnet50")
    for body in (own, peer):
        body.get_submodule(name).register_forward_hook(changes_output)
        body.get_submodule(name).register_forward_pre_hook(changes_input)
    with torch.no_grad():
        assert_equal(dict(own(x)), dict(peer(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dcn_part", ["conv2", "conv2.conv", "conv2.offset"])
@pytest.mark.parametrize("make", [torchvision_style, cfg_built])
def test_deformable_layers(make, dcn_part, backend):
    network, kept = make(), []
    module = network.body.layer3[1].get_submodule(dcn_part)
    module.register_forward_hook(lambda module, arguments, output: kept.extend((output, output.clone())))
    network(torch.randn(1, 3, 64, 64))
    assert torch.equal(*kept)


def test_the_stem_of_a_cfg_built_body(backend):
    body, kept = cfg_built().body, {}
    for name in ("stem", "stem.conv1", "stem.bn1"):
        body.get_submodule(name).register_forward_hook(
            lambda module, arguments, output, name=name: kept.__setitem__(name, (output, output.clone()))
        )
    x = torch.randn(1, 3, 64, 64)
    body(x)
    for output, at_the_call in kept.values():
        assert torch.equal(output, at_the_call)
    conv, norm = body.stem.conv1, body.stem.bn1
    with torch.no_grad():
        expected = conv(x)
        torch.testing.assert_close(kept["stem.conv1"][0], expected)
        torch.testing.assert_close(kept["stem.bn1"][0], norm(expected))
        pooled = nn.functional.max_pool2d(norm(expected).relu(), 3, 2, 1)
        torch.testing.assert_close(kept["stem"][0], pooled)


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


class Keeping(nn.Module):
    """A wrapper as adapters and quantisers put around a convolution."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.kept = inner, None

    def forward(self, x):
        self.kept = self.inner(x)
        return self.kept


class KeepingConv(nn.Conv2d):
    def forward(self, x):
        self.kept = super().forward(x)
        return self.kept


def test_a_module_in_place_of_a_convolution_may_keep_its_result(x, backend):
    network = torchvision_style(False)
    block = network.body.layer1[0]
    subclass = KeepingConv(32, 8, 1, bias=False)
    replace(network, "body.layer1.0.conv3", Keeping(block.conv3))
    replace(network, "body.layer1.1.conv1", subclass)
    patched, kept = network.body.layer1[1].conv3, []
    forward = patched.forward
    patched.forward = lambda x: kept.append(forward(x)) or kept[-1]
    with torch.no_grad():
        before_norm = {}
        for name in ("layer1.0.bn3", "layer1.1.bn1", "layer1.1.bn3"):
            network.body.get_submodule(name).register_forward_pre_hook(
                lambda module, arguments, name=name: before_norm.__setitem__(name, arguments[0].clone())
            )
        network(x)
        with_hooks = before_norm, block.conv3.kept.clone(), subclass.kept.clone(), kept[-1].clone()
        for name in before_norm:
            network.body.get_submodule(name)._forward_pre_hooks.clear()
        network(x)
    assert torch.equal(with_hooks[0]["layer1.0.bn3"], block.conv3.kept)
    assert torch.equal(with_hooks[0]["layer1.1.bn1"], subclass.kept)
    assert torch.equal(with_hooks[0]["layer1.1.bn3"], kept[-1])


def test_identity_in_place_of_a_convolution(x, backend):
    """Its result is its input, which the block still needs."""
    network = torchvision_style(False)
    replace(network, "body.layer1.1.conv1", nn.Identity())
    replace(network, "body.layer1.1.bn1", FrozenBatchNorm2d(32))
    replace(network, "body.layer1.1.conv2", nn.Conv2d(32, 8, 3, padding=1, bias=False))
    randomise(network)
    inputs = []
    network.body.layer1[0].register_forward_hook(lambda m, a, output: inputs.extend((output, output.clone())))
    network(x)
    assert torch.equal(*inputs)


def test_another_shortcut(x, backend):
    """As in ResNet-D: three modules, of which the block knows nothing."""
    network = torchvision_style(False)
    conv, norm = network.body.layer2[0].downsample
    expected = levels_of(network(x))
    conv.stride = (1, 1)
    replace(network, "body.layer2.0.downsample", nn.Sequential(nn.MaxPool2d(1, 2), conv, norm))
    for got, right in zip(levels_of(network(x)), expected, strict=True):
        torch.testing.assert_close(got, right)


class Recorded(torch.Tensor):
    """As loggers and debuggers make them: each operation's result is kept."""

    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        result = super().__torch_function__(function, types, arguments, keywords or {})
        if function is torch.nn.functional.conv2d or function is torch.conv2d:
            cls.kept.append((result, result.as_subclass(torch.Tensor).clone()))
        return result


def test_a_subclass_of_tensor_that_keeps_results(x, native):
    Recorded.kept.clear()
    with torch.no_grad():
        torchvision_style(False)(x.as_subclass(Recorded))
    assert len(Recorded.kept) > 10
    for kept, at_the_call in Recorded.kept:
        assert torch.equal(kept.as_subclass(torch.Tensor), at_the_call)


def test_in_place_where_nobody_watches(x, native):
    """What the rules above are for: without watchers a block allocates one activation per convolution and no more."""
    norm, memory = FrozenBatchNorm2d(8), []
    network = torchvision_style(False)
    plain = type(norm).forward
    try:

        def spy(self, x, residual=None, relu=False, inplace=False):
            memory.append(inplace)
            return plain(self, x, residual, relu, inplace)

        FrozenBatchNorm2d.forward = spy
        with torch.device("cpu"):  # a mode that only says where tensors are made
            network(x)
        assert len(memory) == 53
        assert all(memory)
    finally:
        FrozenBatchNorm2d.forward = plain
