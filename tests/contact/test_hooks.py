"""Hooks see what torchvision's network shows at the same module, and what they keep is never overwritten."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import assert_equal, cfg_built, gradients, loss_of, torchvision_style
from torch import nn

detection = pytest.importorskip("torchvision.models.detection.backbone_utils")
misc = pytest.importorskip("torchvision.ops.misc")

PARTS = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample", "downsample.0", "downsample.1")
LAST_NORM = {"resnet18": "bn2", "resnet50": "bn3"}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def bodies(name: str) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, with the same weights."""
    peer = detection.resnet_fpn_backbone(
        backbone_name=name, weights=None, trainable_layers=5, norm_layer=misc.FrozenBatchNorm2d
    ).body
    for module in peer.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # torchvision's own overwrites what a hook on the norm has kept
    own = torchvision_style(False, name, width=64).body
    peer.load_state_dict(own.state_dict())
    return own.eval(), peer.eval()


def hooked_modules(body: nn.Module) -> dict[str, nn.Module]:
    """The stem's, and of layer1 and layer2 the stages, the blocks and the blocks' parts."""
    names = [f"{stage}.{block}" for stage in ("layer1", "layer2") for block in range(len(body.get_submodule(stage)))]
    names += [f"{block}.{part}" for block in names for part in PARTS]
    return {
        name: module
        for name, module in body.named_modules()
        if name in ("conv1", "bn1", "layer1", "layer2") or name in names
    }


@pytest.fixture
def x():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))


def seen_forward(body: nn.Module, x: torch.Tensor, copy: bool) -> dict[str, torch.Tensor]:
    """Inputs and outputs of the hooked modules: copied at the call or, without ``copy``, as they are afterwards."""
    seen, handles = {}, []
    for name, module in hooked_modules(body).items():

        def keep(module, arguments, output, name=name):
            tensors = {f"{name} output": output} | {f"{name} input {i}": one for i, one in enumerate(arguments)}
            seen.update({key: one.detach().clone() if copy else one for key, one in tensors.items()})

        handles.append(module.register_forward_hook(keep))
    output = body(x)
    for handle in handles:
        handle.remove()
    return seen | {f"level {name}": level for name, level in output.items()}


@pytest.mark.parametrize("gradient", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", LAST_NORM)
def test_forward_hooks_see_what_torchvisions_do(name, gradient, x, backend):
    own, peer = bodies(name)
    with torch.set_grad_enabled(gradient):
        # torchvision's sum with the shortcut overwrites what a hook on the last norm has kept.
        expected = seen_forward(peer, x, copy=True)
        assert len(expected) > 40
        assert_equal(seen_forward(own, x, copy=True), expected, **TOLERANCE)
        assert_equal(seen_forward(own, x, copy=False), expected, **TOLERANCE)


@pytest.mark.parametrize("name", ["conv1", "layer1.0.conv1", "layer1.1.conv2", "layer2.0.downsample.0", "layer1.0.bn2"])
def test_a_hook_on_one_module_alone(name, x, backend):
    """The other modules stay fused."""
    kept = []
    for body in bodies("resnet50"):
        body.get_submodule(name).register_forward_hook(lambda module, arguments, output: kept.append(output))
        with torch.no_grad():
            body(x)
    torch.testing.assert_close(*kept, **TOLERANCE)


@pytest.mark.parametrize("name", LAST_NORM)
def test_full_backward_hooks_see_what_torchvisions_do(name, x, backend):
    """Grad-CAM by modules: gradients of inputs and outputs."""
    seen = []
    for body in bodies(name):
        kept = {}
        for where, module in hooked_modules(body).items():
            if where.endswith(LAST_NORM[name]):  # torchvision's sum in place does not allow one there
                continue

            def keep(module, grad_input, grad_output, where=where, kept=kept):
                kept[f"{where} output"] = grad_output[0]
                kept[f"{where} input"] = grad_input[0]

            module.register_full_backward_hook(keep)
        loss_of(body(x.clone().requires_grad_())).backward()
        seen.append(kept | gradients(body))
    # Sums over many pixels, in another order.
    assert seen[0].keys() == seen[1].keys()
    for key, right in seen[1].items():
        atol = 1e-4 * float(right.abs().max())
        torch.testing.assert_close(seen[0][key], right, rtol=1e-3, atol=atol, msg=lambda text, key=key: key + text)


@pytest.mark.parametrize("name", LAST_NORM)
def test_full_backward_hooks_on_the_last_norm(name, x, backend):
    body, _ = bodies(name)
    loss_of(body(x)).backward()
    expected, kept = gradients(body), []
    norm = body.layer2[1].get_submodule(LAST_NORM[name])
    norm.register_full_backward_hook(lambda module, grad_input, grad_output: kept.extend((*grad_input, *grad_output)))
    loss_of(body(x)).backward()
    assert_equal(gradients(body), expected, rtol=1e-3, atol=1e-6)
    scale, _ = norm.scale_and_shift()
    torch.testing.assert_close(kept[0], kept[1] * scale[:, None, None])
    assert kept[0].any()


def test_tensor_hooks_on_kept_outputs(x, backend):
    """Grad-CAM by a hook on the tensor that a forward hook was given."""
    seen = []
    for body in bodies("resnet50"):
        kept = {}

        def keep(module, arguments, output, kept=kept):
            kept["activation"] = output
            output.register_hook(lambda grad: kept.__setitem__("gradient", grad))

        body.layer2[0].conv2.register_forward_hook(keep)
        loss_of(body(x)).backward()
        seen.append(kept)
    torch.testing.assert_close(seen[0]["activation"], seen[1]["activation"], **TOLERANCE)
    torch.testing.assert_close(seen[0]["gradient"], seen[1]["gradient"], rtol=1e-3, atol=1e-6)


def test_global_hooks_see_every_convolution(x, backend):
    seen = []
    for body in bodies("resnet18"):
        names = {module: name for name, module in body.named_modules() if isinstance(module, nn.Conv2d)}
        kept = {}

        def keep(module, arguments, output, kept=kept, names=names):
            if module in names:
                kept[names[module]] = output

        handle = nn.modules.module.register_module_forward_hook(keep)
        with torch.no_grad():
            body(x)
        handle.remove()
        seen.append(kept)
    assert len(seen[0]) == 20
    assert_equal(*seen, **TOLERANCE)


@pytest.mark.parametrize("name", ["conv1", "layer1.0.conv2", "layer1.0.bn1", "layer1.0.bn3", "layer2.0.downsample"])
def test_values_changed_by_hooks_are_used(name, x, backend):
    results = []
    for body in bodies("resnet50"):
        body.get_submodule(name).register_forward_hook(lambda module, arguments, output: output * 2)
        body.get_submodule(name).register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))
        with torch.no_grad():
            results.append(dict(body(x)))
    assert_equal(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dcn_part", ["conv2", "conv2.conv", "conv2.offset"])
@pytest.mark.parametrize("make", [torchvision_style, cfg_built])
def test_outputs_of_deformable_layers_are_not_overwritten(make, dcn_part, x, backend):
    network, kept = make(), []
    module = network.body.layer3[1].get_submodule(dcn_part)
    module.register_forward_hook(lambda module, arguments, output: kept.extend((output, output.clone())))
    network(x)
    assert torch.equal(*kept)


def test_hooks_on_the_stem_of_a_cfg_built_body(x, backend):
    body, kept = cfg_built().body, {}
    for name in ("stem", "stem.conv1", "stem.bn1"):
        body.get_submodule(name).register_forward_hook(
            lambda module, arguments, output, name=name: kept.__setitem__(name, (output, output.clone()))
        )
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
