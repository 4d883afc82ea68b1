"""Pictures: detections and ground truth over a photograph, and where a deformable layer samples."""

from __future__ import annotations

from detection.prediction.comparison import draw_comparison, last_deformable_layer
from detection.prediction.detections import confident, draw_detections
from detection.prediction.sampling_picture import draw_sampling, places_of
from resnet_cuda.sampling import sampling_points

__all__ = [
    "confident",
    "draw_comparison",
    "draw_detections",
    "draw_sampling",
    "last_deformable_layer",
    "places_of",
    "sampling_points",
]
