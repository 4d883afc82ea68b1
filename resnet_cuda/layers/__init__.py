"""Layers with the names of maskrcnn_benchmark.layers, and torchvision's DeformConv2d."""

from resnet_cuda.layers.conv import Conv2d
from resnet_cuda.layers.conv_norm_act import conv_norm_act
from resnet_cuda.layers.deform_conv import DeformConv, DeformConv2d, ModulatedDeformConv
from resnet_cuda.layers.df_conv import DFConv2d
from resnet_cuda.layers.frozen_bn import FrozenBatchNorm2d
from resnet_cuda.layers.group_norm import group_norm

__all__ = [
    "Conv2d",
    "DFConv2d",
    "DeformConv",
    "DeformConv2d",
    "FrozenBatchNorm2d",
    "ModulatedDeformConv",
    "conv_norm_act",
    "group_norm",
]
