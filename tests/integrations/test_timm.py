"""timm's feature extractors by ResNetFeatures, against its own."""

from __future__ import annotations

import subprocess
import sys
from collections import UserList

import pytest
import torch
from same import assert_near, assert_same, randomise

timm = pytest.importorskip("timm")

from resnet_cuda.integrations.timm import ResNetFeatures, register  # noqa: E402
from resnet_cuda.layers import DFConv2d  # noqa: E402
from resnet_cuda.torchvision_body import VARIANTS  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def registered():
    register()
    register()


def image(channels=3):
    torch.manual_seed(5)
    return torch.randn(2, channels, 64, 96, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("resnet34", {"output_stride": 8}),
        ("resnet50", {"out_indices": UserList([1, 2, 3, 4])}),
        ("resnet50", {"output_stride": 16, "out_indices": 2}),
        ("resnet50", {"in_chans": 5, "out_indices": (-4, -2)}),
        ("resnet18d", {}),
        ("resnet50d", {"output_stride": 8}),
        ("resnet101", {"out_indices": (3,)}),
        ("resnext50_32x4d", {"out_indices": (0, 2)}),
        ("resnet18", {"out_indices": (0,)}),
    ],
    ids=str,
)
def test_features_are_timms(name, options):
    torch.manual_seed(0)
    theirs = randomise(timm.create_model(name, features_only=True, **options))
    ours = timm.create_model(f"resnet_cuda_{name}", features_only=True, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for key in ("channels", "reduction", "module_name", "get_dicts"):
        assert getattr(ours.feature_info, key)() == getattr(theirs.feature_info, key)()
    assert [shape.channels for shape in ours.output_shape().values()] == ours.feature_info.channels()
    assert ours.pretrained_cfg == theirs.pretrained_cfg
    assert timm.data.resolve_data_config(model=ours) == timm.data.resolve_data_config(model=theirs)
    for training in (False, True):
        ours.double().train(training), theirs.double().train(training)
        assert_same(ours, theirs, image(options.get("in_chans", 3)))


def test_every_variant_is_registered_and_timms():
    assert sorted(timm.list_models("resnet_cuda_*")) == sorted(f"resnet_cuda_{name}" for name in VARIANTS)
    assert all(timm.is_model(name) for name in VARIANTS)


@pytest.mark.parametrize("dcn", [False, True])
def test_pretrained_weights_are_timms(dcn, monkeypatch):
    torch.manual_seed(0)
    source = randomise(timm.create_model("resnet18"))
    plain = timm.create_model
    asked = []

    def create_model(name, pretrained=False, **options):
        if not pretrained or name.startswith("resnet_cuda"):
            return plain(name, pretrained, **options)
        asked.append((name, options))
        return source

    monkeypatch.setattr(timm, "create_model", create_model)
    options = {"dcn_stages": (False, False, True, True)} if dcn else {}
    ours = timm.create_model("resnet_cuda_resnet18", True, features_only=True, cache_dir="here", **options)
    assert [(name, options["cache_dir"], options["in_chans"]) for name, options in asked] == [("resnet18", "here", 3)]
    assert sum(isinstance(layer, DFConv2d) for layer in ours.modules()) == (4 if dcn else 0)
    theirs = plain("resnet18", features_only=True)
    theirs.load_state_dict({key: value for key, value in source.state_dict().items() if not key.startswith("fc.")})
    with torch.no_grad():
        got, wanted = ours.double().eval()(image()), theirs.double().eval()(image())
    for index, level in enumerate(wanted):
        assert_near(got[index], level, f"level {index}", 1e-9)


def test_deformable_frozen_features_train():
    model = ResNetFeatures("resnet50", norm_layer="frozen_bn", width=8, dcn_stages=(False, True, True, True))
    randomise(model)
    levels = model(torch.randn(1, 3, 64, 64))
    assert [level.shape[1] for level in levels] == model.feature_info.channels() == [8, 32, 64, 128, 256]
    sum(level.sum() for level in levels).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features_only": False}, "resnet_cuda_resnet18: features_only is False; it must be True"),
        ({"output_stride": 4}, "output_stride is 4; it must be 32, 16 or 8"),
        ({"out_indices": (3, 1)}, "out_indices is .3, 1.; it must be ascending, of 0 to 4 or -5 to -1"),
        ({"out_indices": (5,)}, "out_indices is .5,.; it must be"),
        ({"out_indices": 0}, "out_indices is 0; it must be at least 1"),
        ({"in_chans": 0}, "in_channels is 0; it must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("resnet_cuda_resnet18", **{"features_only": True, **options})


def test_arguments_that_are_not_there_are_refused():
    with pytest.raises(TypeError, match="drop_path_rate"):
        timm.create_model("resnet_cuda_resnet18", features_only=True, drop_path_rate=0.1)


def test_without_timm_the_error_says_what_to_install():
    code = "import sys; sys.modules['timm'] = None\nimport resnet_cuda.integrations.timm"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: resnet_cuda.integrations.timm needs timm: pip install timm" in ended.stderr
