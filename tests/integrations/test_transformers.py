"""transformers' ResNet, DETR and MaskFormer on our backbone, against its own backbone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from same import assert_near, assert_same, randomise

transformers = pytest.importorskip("transformers", minversion="5")

from resnet_cuda.integrations.transformers import ResNetCUDABackbone, ResNetCUDAConfig, from_resnet  # noqa: E402
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d  # noqa: E402

ALL = ["stem", "stage1", "stage2", "stage3", "stage4"]
NARROW_50 = {"embedding_size": 16, "hidden_sizes": [64, 128, 256, 512], "depths": [3, 4, 6, 3]}
NARROW_18 = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "depths": [2, 2, 2, 2], "layer_type": "basic"}
DCN = {"dcn_stages": [False, True, True, True], "deformable_groups": 2}


def image(channels=3):
    torch.manual_seed(5)
    return torch.randn(2, channels, 64, 96, dtype=torch.float64)


def both(name, out_features, norm_layer="bn", channels=3):
    """Ours with theirs' random weights, and theirs."""
    theirs_config = transformers.ResNetConfig(
        **{"resnet18": NARROW_18, "resnet50": NARROW_50}[name], num_channels=channels, out_features=out_features
    )
    config = ResNetCUDAConfig(
        backbone_name=name, width=16, norm_layer=norm_layer, num_channels=channels, out_features=out_features
    )
    torch.manual_seed(0)
    theirs = randomise(transformers.AutoBackbone.from_config(theirs_config))
    ours = transformers.AutoBackbone.from_config(config)
    ours.load_state_dict(from_resnet(theirs.state_dict()))
    return ours, theirs


class FeatureMaps(torch.nn.Module):
    """A backbone's feature maps, and its parameters by our names."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, x):
        return self.backbone(x).feature_maps

    def named_parameters(self, *arguments, **options):
        state = dict(self.backbone.named_parameters())
        return (state if isinstance(self.backbone, ResNetCUDABackbone) else from_resnet(state)).items()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("name", "channels"), [("resnet18", 3), ("resnet50", 3), ("resnet18", 5)])
@pytest.mark.parametrize("out_features", [ALL, ["stage4"], ["stage1", "stage3"]], ids=str)
def test_backbone_is_transformers(name, out_features, channels, training):
    ours, theirs = both(name, out_features, channels=channels)
    assert isinstance(ours, ResNetCUDABackbone)
    for attribute in ("channels", "stage_names", "out_features", "out_indices", "num_features"):
        assert list(getattr(ours, attribute)) == list(getattr(theirs, attribute))
    ours.double().train(training), theirs.double().train(training)
    assert_same(FeatureMaps(ours), FeatureMaps(theirs), image(channels))


def test_outputs_are_transformers():
    ours, theirs = both("resnet18", ["stage2", "stage4"])
    ours.eval(), theirs.eval()
    x = image().float()
    for options in ({}, {"output_hidden_states": True}, {"return_dict": False}):
        got, wanted = ours(x, **options), theirs(x, **options)
        assert type(got) is type(wanted)
        if isinstance(got, tuple):
            got, wanted = {"feature_maps": got[0]}, {"feature_maps": wanted[0]}
        assert got.keys() == wanted.keys()
        for name, levels in wanted.items():
            assert len(got[name]) == len(levels)
            for index, level in enumerate(levels):
                assert_near(got[name][index], level, f"{name} {index}", 1e-5)


def detr(backbone_config):
    config = transformers.DetrConfig(
        backbone_config=backbone_config,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=5,
        use_timm_backbone=False,
        dropout=0.0,
    )
    torch.manual_seed(0)
    return transformers.DetrForObjectDetection(config)


def backbones(model, kind):
    (found,) = [module for module in model.modules() if type(module) is kind]
    return found


def test_detr_with_our_backbone_is_detr_with_transformers():
    """DETR freezes the norms of transformers' ResNet; ours has frozen ones."""
    common = {"out_features": ["stage4"]}
    theirs = detr(transformers.ResNetConfig(**NARROW_50, **common))
    ours = detr(ResNetCUDAConfig(width=16, **common))
    source = backbones(theirs, transformers.models.resnet.modeling_resnet.ResNetBackbone)
    randomise(source)
    backbone = backbones(ours, ResNetCUDABackbone)
    assert sum(type(layer) is FrozenBatchNorm2d for layer in backbone.modules()) == 53
    backbone.load_state_dict(from_resnet(source.state_dict()))
    prefix = next(name for name, module in theirs.named_modules() if module is source) + "."
    rest = {name: value for name, value in theirs.state_dict().items() if not name.startswith(prefix)}
    assert not ours.load_state_dict(rest, strict=False).unexpected_keys
    with torch.no_grad():
        got, wanted = ours.double().eval()(image()), theirs.double().eval()(image())
    assert_near(got.logits, wanted.logits, "logits", 1e-9)
    assert_near(got.pred_boxes, wanted.pred_boxes, "boxes", 1e-9)


def test_detr_trains_deformable_stages():
    model = detr(ResNetCUDAConfig(backbone_name="resnet18", width=16, out_features=["stage4"], norm_layer="gn", **DCN))
    model.train()(image().float()).logits.sum().backward()  # its own loss needs SciPy
    backbone = backbones(model, ResNetCUDABackbone)
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    offsets = [layer.offset.weight.grad for layer in backbone.modules() if isinstance(layer, DFConv2d)]
    assert len(offsets) == 6
    assert all(gradient.any() for gradient in offsets)


def test_maskformer_takes_it():
    backbone = ResNetCUDAConfig(backbone_name="resnet18", width=16, out_features=ALL[1:])
    decoder = transformers.DetrConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=5,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    config = transformers.MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32
    )
    model = transformers.MaskFormerModel(config).eval()
    assert model(image().float()).encoder_last_hidden_state.shape == (2, 128, 2, 3)


def test_saved_and_loaded_again(tmp_path):
    config = ResNetCUDAConfig(backbone_name="resnet18", width=16, out_indices=[2, 4], trainable_layers=2, **DCN)
    model = randomise(ResNetCUDABackbone(config)).eval()
    model.save_pretrained(tmp_path)
    again = ResNetCUDABackbone.from_pretrained(tmp_path).eval()
    assert again.config.to_dict() == {**model.config.to_dict(), **_names_of(again)}
    x = image().float()
    for got, wanted in zip(again(x).feature_maps, model(x).feature_maps, strict=True):
        assert torch.equal(got, wanted)
    trained = {name.split(".")[1] for name, parameter in again.named_parameters() if parameter.requires_grad}
    assert trained == {"layer3", "layer4"}
    assert isinstance(transformers.AutoConfig.from_pretrained(tmp_path), ResNetCUDAConfig)


def _names_of(model):
    return {name: model.config.to_dict()[name] for name in ("_name_or_path", "architectures", "dtype")}


def test_plain_weights_into_deformable_stages_start_at_zero(tmp_path):
    """What a checkpoint lacks is initialised, whatever the memory held."""
    ResNetCUDABackbone(ResNetCUDAConfig(backbone_name="resnet18", width=16)).save_pretrained(tmp_path)
    config = ResNetCUDAConfig(backbone_name="resnet18", width=16, **DCN)
    model = ResNetCUDABackbone.from_pretrained(tmp_path, config=config)
    offsets = [layer.offset for layer in model.modules() if isinstance(layer, DFConv2d)]
    assert len(offsets) == 6
    assert not any(offset.weight.any() or offset.bias.any() for offset in offsets)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out_features": ["stage5"]}, ValueError, "out_features must be a subset of stage_names"),
        ({"trainable_layers": 6}, ValueError, "trainable_layers is 6; it must be 0 to 5"),
        ({"dcn_stages": [True]}, ValueError, "dcn_stages is .True.; it must be 4 of True and False"),
        ({"backbone_name": "resnet26"}, KeyError, "unknown backbone_name 'resnet26'"),
        ({"norm_layer": "ln"}, KeyError, "unknown norm_layer 'ln'"),
    ],
)
def test_wrong_values_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ResNetCUDABackbone(ResNetCUDAConfig(**options))


def test_keys_of_other_models_are_refused():
    with pytest.raises(ValueError, match="'encoder.layer.0.weight' is not a parameter of transformers' ResNet"):
        from_resnet({"encoder.layer.0.weight": torch.zeros(1)})


def test_without_transformers_the_error_says_what_to_install():
    code = "import sys; sys.modules['transformers'] = None\nimport resnet_cuda.integrations.transformers"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: resnet_cuda.integrations.transformers needs transformers 5: pip install" in ended.stderr
