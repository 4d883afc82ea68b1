"""One training step and one detection of a model of maskrcnn-benchmark, in a process of its own.

``python run_maskrcnn_benchmark.py ours|theirs CHECKOUT CONFIG FILE``. "theirs" runs its own layers and resnet.py, with
a stand-in for its compiled part, and writes weights and results to FILE; "ours" installs the integration, loads the
weights from FILE and writes its results there.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import cv2
import numpy
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parent))
from same import randomise

WHO, CHECKOUT, CONFIG, FILE = sys.argv[1:]
sys.path.insert(0, CHECKOUT)


def nms(boxes, scores, threshold):
    """maskrcnn_benchmark/csrc/cpu/nms_cpu.cpp, which counts a box's last pixel."""
    left = scores.argsort(descending=True, stable=True).tolist()
    kept = []
    while left:
        kept.append(left.pop(0))
        x1, y1, x2, y2 = boxes[kept[-1]].tolist()
        rest = []
        for index in left:
            a1, b1, a2, b2 = boxes[index].tolist()
            common = max(0, min(x2, a2) - max(x1, a1) + 1) * max(0, min(y2, b2) - max(y1, b1) + 1)
            union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - common
            if common / union <= threshold:
                rest.append(index)
        left = rest
    return torch.tensor(kept, dtype=torch.int64)


def stand_ins():
    """For maskrcnn_benchmark._C, apex and what torch, NumPy and OpenCV no longer have."""

    class Compiled(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return None

    compiled = sys.modules["maskrcnn_benchmark._C"] = Compiled("maskrcnn_benchmark._C")
    compiled.nms = nms
    compiled.roi_align_forward = lambda x, rois, scale, *size_and_ratio: torch.ops.torchvision.roi_align(
        x, rois, scale, *size_and_ratio, False
    )
    compiled.roi_align_backward = lambda grad, rois, scale, h, w, n, c, height, width, ratio: (
        torch.ops.torchvision._roi_align_backward(grad, rois, scale, h, w, n, c, height, width, ratio, False)
    )
    amp = types.SimpleNamespace(float_function=lambda function: function)
    sys.modules["apex"] = types.ModuleType("apex")
    sys.modules["apex"].amp = sys.modules["apex.amp"] = amp
    numpy.float = float
    resize = cv2.resize
    cv2.resize = lambda image, size, **options: resize(image, tuple(int(length) for length in size), **options)
    torch._six = types.SimpleNamespace(PY3=True)
    import maskrcnn_benchmark.layers.dcn.deform_conv_module as dcn

    operator = torchvision.ops.deform_conv2d
    dcn.deform_conv = lambda x, offset, weight, stride, padding, dilation, *_: operator(
        x, offset, weight, None, stride, padding, dilation
    )
    dcn.modulated_deform_conv = lambda x, offset, mask, weight, bias, stride, padding, dilation, *_: operator(
        x, offset, weight, bias, stride, padding, dilation, mask
    )


if WHO == "theirs":
    stand_ins()
else:
    from resnet_cuda.integrations import maskrcnn_benchmark as integration

    integration.install()

from maskrcnn_benchmark.config import cfg  # noqa: E402
from maskrcnn_benchmark.modeling.backbone import resnet  # noqa: E402
from maskrcnn_benchmark.modeling.detector import build_detection_model  # noqa: E402
from maskrcnn_benchmark.structures.bounding_box import BoxList  # noqa: E402
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints  # noqa: E402
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask  # noqa: E402

assert resnet.__name__ == ("resnet_cuda.resnet" if WHO == "ours" else "maskrcnn_benchmark.modeling.backbone.resnet")
cfg.merge_from_file(str(Path(CHECKOUT) / "configs" / CONFIG))
resnets = cfg.MODEL.RESNETS
resnets.STEM_OUT_CHANNELS, resnets.RES2_OUT_CHANNELS, resnets.WIDTH_PER_GROUP = 32, 64, 32 // resnets.NUM_GROUPS
resnets.BACKBONE_OUT_CHANNELS = 64 if "FPN" in cfg.MODEL.BACKBONE.CONV_BODY else 256
cfg.MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM = 64
cfg.MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM = 64
cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS = (64, 64)
cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS = (64, 64)
cfg.MODEL.RPN.PRE_NMS_TOP_N_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOP_N_TEST = 60
cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN = cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST = 20
cfg.MODEL.RPN.POST_NMS_TOP_N_TRAIN = cfg.MODEL.RPN.POST_NMS_TOP_N_TEST = 20
cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
cfg.MODEL.ROI_HEADS.SCORE_THRESH = cfg.MODEL.RETINANET.INFERENCE_TH = 0.0
cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG = 5

torch.manual_seed(0)
model = build_detection_model(cfg)
if WHO == "theirs":
    randomise(model.backbone)
    weights = model.state_dict()
else:
    stored = torch.load(FILE, weights_only=True)
    weights = stored["weights"]
    assert list(model.state_dict()) == list(weights)
    model.load_state_dict(weights)
# The rest works in float32 alone, where rounding would choose other proposals.
model.backbone.double()
model.backbone.register_forward_pre_hook(lambda _, arguments: (arguments[0].double(),))
model.backbone.register_forward_hook(lambda *call: [level.float() for level in call[-1]])

torch.manual_seed(4)
image = torch.randn(3, 96, 128)
target = BoxList([[10, 12, 60, 70], [40, 20, 120, 90]], (128, 96))
target.add_field("labels", torch.tensor([1, 1]))
target.add_field("masks", SegmentationMask(torch.ones(2, 96, 128, dtype=torch.uint8), (128, 96), "mask"))
points = torch.tensor([[[30.0, 40.0, 2.0]] * 17, [[80.0, 50.0, 2.0]] * 17])
target.add_field("keypoints", PersonKeypoints(points, (128, 96)))
losses = model.train()([image], [target])
sum(losses.values()).backward()
gradients = {name: it.grad for name, it in model.named_parameters() if it.grad is not None}
with torch.no_grad():
    (found,) = model.eval()([image])
# Fields of RPN-only models are named otherwise.
fields = {name: found.get_field(name) for name in ("scores", "labels", "objectness") if found.has_field(name)}
results = {"losses": losses, "gradients": gradients, "found": {"boxes": found.bbox, **fields}}
if WHO == "theirs":
    torch.save({"weights": weights, "theirs": results}, FILE)
else:
    torch.save({**stored, "ours": results}, FILE)
