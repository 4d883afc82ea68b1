"""The known formats, by name."""

from resnet_cuda.weights.formats.caffe2 import CAFFE2
from resnet_cuda.weights.formats.detectron2 import DETECTRON2
from resnet_cuda.weights.formats.format import Format
from resnet_cuda.weights.formats.maskrcnn_benchmark import MASKRCNN_BENCHMARK
from resnet_cuda.weights.formats.mmdetection import MMDETECTION
from resnet_cuda.weights.formats.templates import Context
from resnet_cuda.weights.formats.torchvision import TORCHVISION

# Where a file fits several equally well, the first is meant.
FORMATS: dict[str, Format] = {it.name: it for it in (TORCHVISION, MASKRCNN_BENCHMARK, DETECTRON2, MMDETECTION, CAFFE2)}

__all__ = ["CAFFE2", "DETECTRON2", "FORMATS", "MASKRCNN_BENCHMARK", "MMDETECTION", "TORCHVISION", "Context", "Format"]
