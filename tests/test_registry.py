"""Registries: what they say of unknown and of double names, and that the body takes what users add."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import narrow_cfg
from torch import nn

from resnet_cuda import resnet
from resnet_cuda.registry import Registry


def test_registries_name_what_they_know():
    registry = Registry("animal", {"cat": 1})
    with pytest.raises(KeyError, match="unknown animal 'dog'; allowed are cat"):
        registry["dog"]
    with pytest.raises(KeyError, match="animal 'cat' is registered already"):
        registry.register("cat", 2)

    @registry.register("cow")
    def cow():
        return "moo"

    assert registry["cow"]() == cow() == "moo"


def test_users_add_to_the_registries(monkeypatch):
    registries = (resnet._STAGE_SPECS, resnet._TRANSFORMATION_MODULES, resnet._STEM_MODULES)
    before = [dict(registry) for registry in registries]
    try:
        resnet._STAGE_SPECS.register("R-7-C3", (resnet.StageSpec(1, 1, False), resnet.StageSpec(2, 1, True)))

        @resnet._TRANSFORMATION_MODULES.register("Plain")
        class Plain(nn.Conv2d):
            def __init__(self, in_channels, bottleneck, out_channels, groups, in_1x1, stride, dilation, dcn_config):
                super().__init__(in_channels, out_channels, 1, stride)

        @resnet._STEM_MODULES.register("Small")
        class Small(nn.Conv2d):
            def __init__(self, cfg):
                super().__init__(3, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, 1)

        cfg = narrow_cfg("R-50-C4", TRANS_FUNC="Plain", STEM_FUNC="Small")
        cfg.MODEL.BACKBONE.CONV_BODY = "R-7-C3"
        (output,) = resnet.ResNet(cfg)(torch.randn(1, 3, 8, 8))
        assert output.shape == (1, 32, 4, 4)
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)
