"""timm's feature extractors with fused norms and deformable stages.

>>> from resnet_cuda.integrations.timm import register
>>> register()  # adds resnet_cuda_resnet50 and all others of resnet_cuda.torchvision_body.VARIANTS
>>> model = timm.create_model("resnet_cuda_resnet50", features_only=True, out_indices=(1, 2, 3, 4), pretrained=True)

Arguments are those of :class:`ResNetFeatures`, including timm's ``in_chans``, ``out_indices`` and ``output_stride``.
Parameter names, outputs and ``feature_info`` are those of timm's model of that name, without ``resnet_cuda_``;
``pretrained=True`` loads timm's weights for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from resnet_cuda._arguments import integer
from resnet_cuda.blocks import NormFunction
from resnet_cuda.integrations._peer import missing, refuse
from resnet_cuda.output_shape import Level
from resnet_cuda.torchvision_body import VARIANTS, TorchvisionBody, norm_function
from resnet_cuda.torchvision_stem import stem
from resnet_cuda.weights import load_weights

try:
    import timm
    from timm.models import FeatureInfo, register_model
except ImportError as error:
    raise missing("timm", "timm: pip install timm", error) from error

PREFIX = "resnet_cuda_"
_STEM = "act1"  # timm's name for the stem's result before pooling
_LEVELS = 5
_DILATED = {32: (False, False, False), 16: (False, False, True), 8: (False, True, True)}
__all__ = ["ResNetFeatures", "register"]


class ResNetFeatures(TorchvisionBody):
    """``forward`` (N, in_chans, H, W) gives a list of levels [timm.models.FeatureListNet].

    Args:
        backbone_name: as for :func:`resnet_cuda.resnet_fpn_backbone`.
        out_indices: levels to return, ascending: 0 is the stem (stride 2), 1 to 4 the stages; negative indices count
            from the last; an int n means the last n levels.
        in_chans: channels of the image.
        output_stride: 32, or 16 or 8 with dilated stages.
        norm_layer, dcn_stages, modulated, deformable_groups, width: as for :func:`resnet_cuda.resnet_fpn_backbone`;
            the default norm is trained BatchNorm, as in timm.
    """

    def __init__(
        self,
        backbone_name: str = "resnet50",
        *,
        out_indices: int | Sequence[int] = (0, 1, 2, 3, 4),
        in_chans: int = 3,
        output_stride: int = 32,
        norm_layer: str | NormFunction = "bn",
        dcn_stages: Sequence[bool] = (False, False, False, False),
        modulated: bool = True,
        deformable_groups: int = 1,
        width: int = 64,
    ):
        where = type(self).__name__
        if output_stride not in _DILATED:
            refuse(f"{where}: output_stride", output_stride, "32, 16 or 8")
        if isinstance(out_indices, Sequence):
            given = [integer(where, "an entry of out_indices", index) for index in out_indices]
            indices = [index + _LEVELS if index < 0 else index for index in given]
        else:
            count = integer(where, "out_indices", out_indices, 1)
            indices = list(range(_LEVELS - count, _LEVELS))
        if not indices or indices != sorted(set(indices) & set(range(_LEVELS))):
            refuse(f"{where}: out_indices", out_indices, "ascending, of 0 to 4 or -5 to -1")
        last = max(indices[-1], 1)
        super().__init__(
            backbone_name,
            norm_function(norm_layer),
            range(1, last + 1),
            dcn_stages,
            modulated,
            deformable_groups,
            width,
            in_channels=in_chans,
            replace_stride_with_dilation=_DILATED[output_stride],
        )
        entries = [{"num_chs": width, "reduction": 2, "module": _STEM}]
        for stage in self.stages:
            channels, stride = self.stage_channels[stage], self.stage_strides[stage]
            entries.append({"num_chs": channels, "reduction": stride, "module": stage})
        if indices == [0]:
            del self.layer1
            self.stages = []
        self._feature_info = FeatureInfo(entries, tuple(indices))
        # The levels that forward gives, by timm's names; transformers.TimmBackbone sets others for a call.
        self.return_layers = {entry["module"]: str(entry["index"]) for entry in self._feature_info.get_dicts()}

    @property
    def feature_info(self) -> FeatureInfo:
        return self._feature_info

    def levels(self) -> list[Level]:
        names = ("stem", "res2", "res3", "res4", "res5")
        entries = self._feature_info.get_dicts()
        return [Level(names[it["index"]], it["num_chs"], it["reduction"], it["module"]) for it in entries]

    def forward(self, x: Tensor) -> list[Tensor]:
        x = stem(self.conv1, self.bn1, self.relu, x)
        outputs = [x] if _STEM in self.return_layers else []
        x = self.maxpool(x)
        for stage in self.stages:
            x = getattr(self, stage)(x)
            if stage in self.return_layers:
                outputs.append(x)
        return outputs


def register() -> None:
    """Adds ``resnet_cuda_<name>`` to timm's registry for every name in ``VARIANTS``. A second call does nothing."""
    for name in VARIANTS:
        if not timm.is_model(PREFIX + name):
            register_model(_entrypoint(name))


def _entrypoint(backbone_name: str) -> Callable[..., ResNetFeatures]:
    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        features_only: bool = False,
        **options: Any,
    ) -> ResNetFeatures:
        if features_only is not True:
            refuse(f"{create.__name__}: features_only", features_only, "True: there is no classifier")
        model = ResNetFeatures(backbone_name, **options)
        settings = {"pretrained_cfg": pretrained_cfg, "pretrained_cfg_overlay": pretrained_cfg_overlay}
        if pretrained:
            in_chans = options.get("in_chans", 3)
            source = timm.create_model(backbone_name, True, **settings, cache_dir=cache_dir, in_chans=in_chans)
            load_weights(model, source.state_dict())
            cfg = source.pretrained_cfg
        else:
            cfg = timm.get_pretrained_cfg(backbone_name).to_dict()
        model.pretrained_cfg = {key: value for key, value in cfg.items() if key not in ("num_classes", "classifier")}
        model.default_cfg = model.pretrained_cfg
        return model

    create.__name__ = create.__qualname__ = PREFIX + backbone_name
    create.__doc__ = f"{backbone_name} as a :class:`ResNetFeatures`."
    return create
