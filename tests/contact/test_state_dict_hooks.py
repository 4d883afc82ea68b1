"""Hooks on state_dict and load_state_dict, registered before optimize_for_inference and accelerate, stay."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.accelerated import randomised
from torch import nn

from resnet_cuda import accelerate, optimize_for_inference

models = pytest.importorskip("torchvision.models")

HOOKS = (
    "register_state_dict_pre_hook",
    "register_state_dict_post_hook",
    "register_load_state_dict_pre_hook",
    "register_load_state_dict_post_hook",
)


def optimized(model: nn.Module) -> nn.Module:
    return optimize_for_inference(model)


def accelerated(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    assert accelerate(model).replaced
    return model


@pytest.mark.parametrize("change", [optimized, accelerated])
@pytest.mark.parametrize("layer", ["", "layer1", "layer1.0", "layer1.0.conv1", "bn1", "layer2.0.downsample"])
@pytest.mark.parametrize("name", HOOKS)
def test_stay(name, layer, change):
    model = randomised(models.resnet18(num_classes=7)).eval()
    called = []

    def hook(module, *arguments):
        called.append(type(module))

    getattr(model.get_submodule(layer), name)(hook)
    changed = change(model)
    called.clear()
    changed.load_state_dict(changed.state_dict())
    assert called == [type(changed.get_submodule(layer))]


def test_a_hook_changes_the_saved_weights():
    model = randomised(models.resnet18(num_classes=7)).eval()

    def half(module, state, prefix, metadata):
        for name, tensor in state.items():
            if name.startswith(prefix) and tensor.is_floating_point():
                state[name] = tensor.half()

    model.layer1[0].register_state_dict_post_hook(half)
    changed = optimize_for_inference(model)
    dtypes = {name: it.dtype for name, it in changed.state_dict().items()}
    assert dtypes["layer1.0.conv1.weight"] == torch.float16 and dtypes["layer1.1.conv1.weight"] == torch.float32
