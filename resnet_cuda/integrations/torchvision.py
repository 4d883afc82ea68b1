"""torchvision's detectors on this package's backbone, by the names and arguments of torchvision's builders.

>>> from resnet_cuda.integrations.torchvision import maskrcnn_resnet50_fpn
>>> model = maskrcnn_resnet50_fpn(weights="DEFAULT")  # as torchvision.models.detection.maskrcnn_resnet50_fpn
>>> model = maskrcnn_resnet50_fpn(num_classes=3, dcn_stages=(False, True, True, True), norm_layer="gn")

Every builder takes

- torchvision's arguments, with its defaults: ``weights`` (of the whole detector: torchvision's, a path, or anything
  that :func:`resnet_cuda.load_weights` takes), ``num_classes``, ``weights_backbone`` (likewise),
  ``trainable_backbone_layers``, and ``progress``, which has no effect;
- all arguments of :func:`resnet_cuda.resnet_fpn_backbone` but ``weights``, ``trainable_layers``, ``returned_layers``
  and ``extra_blocks``, which the detector gives: ``backbone_name``, ``norm_layer``, ``dcn_stages``, ...;
- arguments of the detector's class, such as ``min_size`` or ``box_score_thresh``.

Without arguments of the second group, the keys of ``state_dict()``, the outputs and the losses are those of
torchvision's model. The default ``norm_layer`` is torchvision's: frozen with weights, trained BatchNorm without, always
BatchNorm in version 2. A detector's weights can also be loaded into another backbone, such as one with deformable
stages, as far as they fit its parameters (:func:`resnet_cuda.load_weights`).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from torch import nn

from resnet_cuda._arguments import integer
from resnet_cuda.fpn import LastLevelP6P7
from resnet_cuda.integrations._peer import missing
from resnet_cuda.torchvision_backbone import BackboneWithFPN, resnet_fpn_backbone
from resnet_cuda.torchvision_body import VARIANTS
from resnet_cuda.weights import load_weights

try:
    from torchvision.models import detection
    from torchvision.models.detection import faster_rcnn, mask_rcnn, retinanet, rpn
except ImportError as error:
    raise missing("torchvision", "torchvision: pip install torchvision", error) from error

_GIVEN_BY_THE_DETECTOR = {"weights", "trainable_layers", "returned_layers", "extra_blocks"}
_BACKBONE_OPTIONS = set(inspect.signature(resnet_fpn_backbone).parameters) - _GIVEN_BY_THE_DETECTOR
_TRANSFORM_OPTIONS = {"size_divisible", "fixed_size", "_skip_resize"}
_ROI_CONVOLUTIONS = [256, 256, 256, 256]


def _roi_heads(backbone: BackboneWithFPN, num_classes: int) -> dict[str, Any]:
    anchors = faster_rcnn._default_anchorgen()
    channels = backbone.out_channels
    box_head = faster_rcnn.FastRCNNConvFCHead((channels, 7, 7), _ROI_CONVOLUTIONS, [1024], norm_layer=nn.BatchNorm2d)
    head = rpn.RPNHead(channels, anchors.num_anchors_per_location()[0], conv_depth=2)
    return {"rpn_anchor_generator": anchors, "rpn_head": head, "box_head": box_head}


def _mask_heads(backbone: BackboneWithFPN, num_classes: int) -> dict[str, Any]:
    head = mask_rcnn.MaskRCNNHeads(backbone.out_channels, _ROI_CONVOLUTIONS, 1, norm_layer=nn.BatchNorm2d)
    return {**_roi_heads(backbone, num_classes), "mask_head": head}


def _dense_head(backbone: BackboneWithFPN, num_classes: int) -> dict[str, Any]:
    anchors = retinanet._default_anchorgen()
    count = anchors.num_anchors_per_location()[0]
    group_norm = partial(nn.GroupNorm, 32)
    head = retinanet.RetinaNetHead(backbone.out_channels, count, num_classes, norm_layer=group_norm)
    head.regression_head._loss_type = "giou"
    return {"anchor_generator": anchors, "head": head}


class _Recipe(NamedTuple):
    """What torchvision's builder of one detector does."""

    detector: type[nn.Module]
    weights: Any
    heads: Callable[[BackboneWithFPN, int], dict[str, Any]] = lambda backbone, num_classes: {}
    version: int = 1
    dense: bool = False  # no P2, but P6 and P7
    top_of_c5: bool = False  # P6 is made of C5, not of P5
    fpn_norm_layer: str | None = None
    eps_of_coco_v1: float = 0.0
    num_classes: int = 91


_RECIPES = {
    "fasterrcnn_resnet50_fpn": _Recipe(detection.FasterRCNN, detection.FasterRCNN_ResNet50_FPN_Weights),
    "maskrcnn_resnet50_fpn": _Recipe(detection.MaskRCNN, detection.MaskRCNN_ResNet50_FPN_Weights),
    "keypointrcnn_resnet50_fpn": _Recipe(
        detection.KeypointRCNN, detection.KeypointRCNN_ResNet50_FPN_Weights, num_classes=2
    ),
    "retinanet_resnet50_fpn": _Recipe(detection.RetinaNet, detection.RetinaNet_ResNet50_FPN_Weights, dense=True),
    "fcos_resnet50_fpn": _Recipe(detection.FCOS, detection.FCOS_ResNet50_FPN_Weights, dense=True, eps_of_coco_v1=1e-5),
    "fasterrcnn_resnet50_fpn_v2": _Recipe(
        detection.FasterRCNN, detection.FasterRCNN_ResNet50_FPN_V2_Weights, _roi_heads, 2, fpn_norm_layer="bn"
    ),
    "maskrcnn_resnet50_fpn_v2": _Recipe(
        detection.MaskRCNN, detection.MaskRCNN_ResNet50_FPN_V2_Weights, _mask_heads, 2, fpn_norm_layer="bn"
    ),
    "retinanet_resnet50_fpn_v2": _Recipe(
        detection.RetinaNet, detection.RetinaNet_ResNet50_FPN_V2_Weights, _dense_head, 2, dense=True, top_of_c5=True
    ),
}


def _build(
    function: str,
    *,
    weights: Any = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Any = None,
    trainable_backbone_layers: int | None = None,
    **options: Any,
) -> nn.Module:
    recipe = _RECIPES[function]
    source = None if weights is None or _is_named(recipe, weights) else weights
    weights = None if source is not None else recipe.weights.verify(weights)
    num_classes = _count(function, "num_classes", num_classes, weights, "categories", recipe.num_classes)
    if recipe.detector is detection.KeypointRCNN:
        given = options.get("num_keypoints")
        options["num_keypoints"] = _count(function, "num_keypoints", given, weights, "keypoint_names", 17)
    if weights is not None or source is not None:
        weights_backbone = None
    backbone_options = {name: options.pop(name) for name in sorted(_BACKBONE_OPTIONS & set(options))}
    allowed = _BACKBONE_OPTIONS | set(inspect.signature(recipe.detector).parameters) - {"backbone", "kwargs"}
    allowed |= _TRANSFORM_OPTIONS  # the detectors hand them on; torchvision's references give _skip_resize
    for name in options:  # the detectors' classes take any name and ignore what they do not know
        if name not in allowed:
            raise TypeError(f"{function}: there is no argument {name!r}; allowed are {', '.join(sorted(allowed))}")
    trained = weights is not None or source is not None or weights_backbone is not None
    norm_layer = backbone_options.get("norm_layer")
    if norm_layer is None:
        backbone_options["norm_layer"] = "frozen_bn" if trained and recipe.version == 1 else "bn"
    if recipe.fpn_norm_layer is not None:
        backbone_options.setdefault("fpn_norm_layer", recipe.fpn_norm_layer)
    channels = backbone_options.get("in_channels", 3)
    for name in ("image_mean", "image_std"):
        if channels != 3 and len(options.get(name) or ()) != channels:
            raise ValueError(
                f"{function}: {name} is {options.get(name)!r}; it must have in_channels = {channels} values"
            )
    if recipe.dense:
        backbone_options |= {"returned_layers": [2, 3, 4], "extra_blocks": _top_levels(recipe, backbone_options)}
    trainable = _trainable_layers(function, trained, trainable_backbone_layers)
    backbone = resnet_fpn_backbone(weights=weights_backbone, trainable_layers=trainable, **backbone_options)
    model = recipe.detector(backbone, num_classes, **recipe.heads(backbone, num_classes), **options)
    if weights is not None:
        # torchvision sets eps to 0 for these; load_weights changes the variances instead.
        eps = recipe.eps_of_coco_v1 if recipe.version == 1 and weights.name == "COCO_V1" else 1e-5
        load_weights(model, weights, eps=eps)
    if source is not None:
        load_weights(model, source)
    return model


def _is_named(recipe: _Recipe, weights: Any) -> bool:
    """Whether it is of torchvision's enum, or a name in it, and not a file or another source."""
    if not isinstance(weights, str):
        return isinstance(weights, Enum)
    return weights.isidentifier() or weights.startswith(f"{recipe.weights.__name__}.")


def _count(function: str, name: str, value: int | None, weights: Any, meta: str, default: int) -> int:
    if weights is None:
        return integer(function, name, default if value is None else value, 1)
    count = len(weights.meta[meta])
    if value is not None and value != count:
        raise ValueError(f"{function}: {name} is {value!r}; it must be {count}, which {weights} have, or None")
    return count


def _trainable_layers(function: str, trained: bool, layers: int | None) -> int:
    if layers is not None and not 0 <= integer(function, "trainable_backbone_layers", layers) <= 5:
        raise ValueError(f"{function}: trainable_backbone_layers is {layers!r}; it must be 0 to 5")
    if trained:
        return 3 if layers is None else layers
    if layers is not None and layers != 5:
        warnings.warn(
            f"{function}: trainable_backbone_layers is {layers}, but without weights all layers are trained",
            stacklevel=4,
        )
    return 5


def _top_levels(recipe: _Recipe, backbone_options: dict[str, Any]) -> LastLevelP6P7:
    out_channels = backbone_options.get("fpn_channels", 256)
    variant = VARIANTS[backbone_options.get("backbone_name", "resnet50")]
    c5_channels = 8 * backbone_options.get("width", 64) * (4 if variant.bottleneck else 1)
    top = LastLevelP6P7(c5_channels if recipe.top_of_c5 else out_channels, out_channels)
    top.use_P5 = not recipe.top_of_c5
    return top


def fasterrcnn_resnet50_fpn(*, weights_backbone: Any = "IMAGENET1K_V1", **options: Any) -> detection.FasterRCNN:
    """Faster R-CNN; arguments: see the module [torchvision.models.detection.fasterrcnn_resnet50_fpn]."""
    return _build("fasterrcnn_resnet50_fpn", weights_backbone=weights_backbone, **options)


def maskrcnn_resnet50_fpn(*, weights_backbone: Any = "IMAGENET1K_V1", **options: Any) -> detection.MaskRCNN:
    """Mask R-CNN; arguments: see the module [torchvision.models.detection.maskrcnn_resnet50_fpn]."""
    return _build("maskrcnn_resnet50_fpn", weights_backbone=weights_backbone, **options)


def keypointrcnn_resnet50_fpn(*, weights_backbone: Any = "IMAGENET1K_V1", **options: Any) -> detection.KeypointRCNN:
    """Keypoint R-CNN, which also takes ``num_keypoints``, by default 17; other arguments: see the module."""
    return _build("keypointrcnn_resnet50_fpn", weights_backbone=weights_backbone, **options)


def retinanet_resnet50_fpn(*, weights_backbone: Any = "IMAGENET1K_V1", **options: Any) -> detection.RetinaNet:
    """RetinaNet; arguments: see the module [torchvision.models.detection.retinanet_resnet50_fpn]."""
    return _build("retinanet_resnet50_fpn", weights_backbone=weights_backbone, **options)


def fcos_resnet50_fpn(*, weights_backbone: Any = "IMAGENET1K_V1", **options: Any) -> detection.FCOS:
    """FCOS; arguments: see the module [torchvision.models.detection.fcos_resnet50_fpn]."""
    return _build("fcos_resnet50_fpn", weights_backbone=weights_backbone, **options)


def fasterrcnn_resnet50_fpn_v2(**options: Any) -> detection.FasterRCNN:
    """Version 2: BatchNorm in the pyramid and in the box head, two convolutions in the RPN's head."""
    return _build("fasterrcnn_resnet50_fpn_v2", **options)


def maskrcnn_resnet50_fpn_v2(**options: Any) -> detection.MaskRCNN:
    """As :func:`fasterrcnn_resnet50_fpn_v2`, and BatchNorm in the mask head."""
    return _build("maskrcnn_resnet50_fpn_v2", **options)


def retinanet_resnet50_fpn_v2(**options: Any) -> detection.RetinaNet:
    """Version 2: P6 from C5, GroupNorm in the head, GIoU as its loss."""
    return _build("retinanet_resnet50_fpn_v2", **options)
