"""A backbone for Hugging Face transformers: for DETR, MaskFormer and all models that take a ``backbone_config``.

>>> from resnet_cuda.integrations.transformers import ResNetCUDAConfig
>>> backbone = ResNetCUDAConfig(backbone_name="resnet50", dcn_stages=[False, True, True, True], out_features=["stage4"])
>>> model = transformers.DetrForObjectDetection(transformers.DetrConfig(backbone_config=backbone))

``AutoBackbone.from_config``, ``save_pretrained`` and ``from_pretrained`` work as for transformers' own ResNet. Stages
have its names ("stem", "stage1", ..., "stage4"). Parameters have torchvision's names with the prefix ``body.``;
:func:`from_resnet` translates the state dict of transformers' ResNet. The default norm is FrozenBatchNorm2d, which
DETR, unlike BatchNorm, does not replace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from resnet_cuda._arguments import integer
from resnet_cuda.integrations._peer import missing, refuse
from resnet_cuda.layers import DeformConv2d, DFConv2d
from resnet_cuda.torchvision_body import TorchvisionBody, norm_function
from resnet_cuda.torchvision_stem import stem

try:
    from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
    from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
    from transformers.modeling_outputs import BackboneOutput
except ImportError as error:
    raise missing("transformers", "transformers 5: pip install 'transformers>=5'", error) from error


class ResNetCUDAConfig(BackboneConfigMixin, PreTrainedConfig):
    """The configuration of :class:`ResNetCUDABackbone`.

    It has ``num_channels`` (of the image), ``trainable_layers`` (5 by default), ``out_features`` or ``out_indices`` (by
    default the last stage), and of :func:`resnet_cuda.resnet_fpn_backbone`'s arguments these: ``backbone_name``,
    ``norm_layer``, ``dcn_stages``, ``modulated``, ``deformable_groups``, ``width``,
    ``replace_stride_with_dilation``, ``deep_stem`` and ``avg_down``.
    """

    # Without "resnet" in it, by which DETR would choose parameters to freeze, by names that no ResNet there has.
    model_type = "res_net_cuda"

    backbone_name: str = "resnet50"
    num_channels: int = 3
    norm_layer: str = "frozen_bn"
    dcn_stages: list[bool] | tuple[bool, ...] = (False, False, False, False)
    modulated: bool = True
    deformable_groups: int = 1
    width: int = 64
    replace_stride_with_dilation: list[bool] | tuple[bool, ...] = (False, False, False)
    deep_stem: bool | None = None
    avg_down: bool | None = None
    trainable_layers: int = 5

    def __post_init__(self, **kwargs: Any):
        self.stage_names = ["stem", "stage1", "stage2", "stage3", "stage4"]
        out = {name: kwargs.pop(name, None) for name in ("out_features", "out_indices")}
        self.set_output_features_output_indices(**out)
        super().__post_init__(**kwargs)


class ResNetCUDABackbone(BackboneMixin, PreTrainedModel):
    """``forward(pixel_values)`` gives a BackboneOutput with the ``feature_maps`` of ``out_features``. The backbone has
    ``channels``, ``stage_names`` and ``out_features``. "stem" is the result after pooling, of stride 4."""

    config_class = ResNetCUDAConfig
    main_input_name = "pixel_values"
    has_attentions = False

    def __init__(self, config: ResNetCUDAConfig):
        super().__init__(config)
        layers = integer("ResNetCUDAConfig", "trainable_layers", config.trainable_layers)
        if not 0 <= layers <= 5:
            refuse("ResNetCUDAConfig: trainable_layers", layers, "0 to 5")
        self.body = TorchvisionBody(
            config.backbone_name,
            norm_function(config.norm_layer),
            (1, 2, 3, 4),
            config.dcn_stages,
            config.modulated,
            config.deformable_groups,
            config.width,
            in_channels=config.num_channels,
            replace_stride_with_dilation=config.replace_stride_with_dilation,
            deep_stem=config.deep_stem,
            avg_down=config.avg_down,
        )
        for layer in self.body.modules():
            if isinstance(layer, DFConv2d):
                layer.offset.starts_at_zero = True
        self.num_features = [config.width, *self.body.stage_channels.values()]
        self.post_init()
        self.train(self.training)

    def train(self, mode: bool = True) -> ResNetCUDABackbone:
        """Also freezes the layers beyond ``trainable_layers`` again: ``from_pretrained`` makes new parameters."""
        super().train(mode)
        trained = ("layer4.", "layer3.", "layer2.", "layer1.", "conv1.")[: self.config.trainable_layers]
        for name, parameter in self.body.named_parameters():
            if self.config.trainable_layers < 5 and not name.startswith(trained):
                parameter.requires_grad = False
        return self

    def _init_weights(self, module: nn.Module) -> None:
        """As the body starts; transformers calls it for what a checkpoint lacks."""
        if getattr(module, "starts_at_zero", False):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.Conv2d, DeformConv2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif getattr(module, "weight", None) is not None:  # a norm
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            if getattr(module, "running_mean", None) is not None:
                nn.init.zeros_(module.running_mean)
                nn.init.ones_(module.running_var)
            if getattr(module, "num_batches_tracked", None) is not None:
                nn.init.zeros_(module.num_batches_tracked)

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> BackboneOutput | tuple:
        """``hidden_states`` has all levels, beginning with the stem."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        body = self.body
        levels = [body.maxpool(stem(body.conv1, body.bn1, body.relu, pixel_values))]
        for stage in body.stages:
            levels.append(getattr(body, stage)(levels[-1]))
        feature_maps = tuple(levels[self.stage_names.index(name)] for name in self.out_features)
        hidden_states = tuple(levels) if output_hidden_states else None
        if return_dict is False or (return_dict is None and not self.config.return_dict):
            return (feature_maps,) if hidden_states is None else (feature_maps, hidden_states)
        return BackboneOutput(feature_maps=feature_maps, hidden_states=hidden_states)


_RENAMED = (
    (r"^(resnet\.)?embedder\.embedder\.convolution\.", "body.conv1."),
    (r"^(resnet\.)?embedder\.embedder\.normalization\.", "body.bn1."),
    (r"^(resnet\.)?encoder\.stages\.(\d+)\.layers\.", lambda found: f"body.layer{int(found[2]) + 1}."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d+)\.convolution\.", lambda found: f".conv{int(found[1]) + 1}."),
    (r"\.layer\.(\d+)\.normalization\.", lambda found: f".bn{int(found[1]) + 1}."),
)


def from_resnet(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates a state dict of transformers' ResNetBackbone, ResNetModel or ResNetForImageClassification.

    Only for networks with the stride in the 3x3, as in "microsoft/resnet-50", and without deformable stages.
    """
    renamed = {}
    for key, value in state_dict.items():
        if key.startswith(("classifier.", "pooler.")):
            continue
        for pattern, replacement in _RENAMED:
            key = re.sub(pattern, replacement, key)
        if not key.startswith("body."):
            raise ValueError(f"from_resnet: {key!r} is not a parameter of transformers' ResNet")
        renamed[key] = value
    return renamed


AutoConfig.register(ResNetCUDAConfig.model_type, ResNetCUDAConfig)
AutoBackbone.register(ResNetCUDAConfig, ResNetCUDABackbone)
