"""What a typed program may write; mypy reads it (test_types.py), nobody runs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import resnet_cuda
from resnet_cuda import layers, ops, reference, resnet

x = torch.zeros(2, 64, 8, 8)
offset, mask = torch.zeros(2, 18, 8, 8), torch.ones(2, 9, 8, 8)
weight, bias, ones = torch.zeros(64, 64, 3, 3), torch.zeros(64), torch.ones(64)

assert_type(ops.deform_conv2d(x, offset, weight, bias, stride=1, padding=(1, 1), dilation=[1, 1], mask=mask), Tensor)
assert_type(ops.frozen_bn_relu(x, ones, bias, residual=x, relu=True, inplace=False), Tensor)
assert_type(reference.deform_conv2d(x, offset, weight, None, 1, 1, 1, mask), Tensor)
assert_type(reference.frozen_bn_relu(x, ones, bias, None, False, True), Tensor)
ops.deform_conv2d("x", offset, weight)  # type: ignore[arg-type]
ops.frozen_bn_relu(x, 1.0, bias)  # type: ignore[arg-type]

assert_type(resnet_cuda.__version__, str)
resnet_cuda.optimise_for_inference(nn.ReLU())  # type: ignore[attr-defined]
assert_type(resnet_cuda.export.export_onnx(nn.ReLU(), "relu.onnx").difference, float | None)
assert_type(resnet_cuda.backend(), str)
resnet_cuda.use_backend("auto")
with resnet_cuda.use_backend("reference") as chosen:
    assert_type(chosen, resnet_cuda.use_backend)
resnet_cuda.use_backend(1)  # type: ignore[arg-type]

assert_type(layers.DFConv2d(64, 64, deformable_groups=2), layers.DFConv2d)
assert_type(layers.FrozenBatchNorm2d(64, eps=0.0), layers.FrozenBatchNorm2d)
assert_type(layers.group_norm(64), nn.GroupNorm)
assert_type(layers.FrozenBatchNorm2d(64).forward(x, residual=x, relu=True, inplace=True), Tensor)
assert_type(layers.FrozenBatchNorm2d(64).running_var, Tensor)
assert_type(layers.DFConv2d(64, 64).forward(x), Tensor)

backbone = resnet_cuda.resnet_fpn_backbone("resnet50", dcn_stages=(False, True, True, True), norm_layer="gn")
assert_type(backbone.forward(x)["0"], Tensor)
assert_type(backbone.out_channels, int)
cfg = resnet_cuda.config.get_cfg()
cfg.merge_from_file("e2e_mask_rcnn_R_50_FPN_1x.yaml")
built: nn.Sequential = resnet_cuda.build_backbone(cfg)
report = resnet_cuda.load_weights(built, "model_final.pkl", eps=0.0, pixels="torchvision")
assert_type(report.missing, list[str])
assert_type(resnet_cuda.load_weights(backbone, backbone.state_dict(), False), resnet_cuda.LoadReport)
assert_type(backbone.output_shape()["0"].stride, int)
assert_type(resnet_cuda.build_backbone(cfg).feature_info.channels(), list[int])
resnet_cuda.load_weights("model", backbone)  # type: ignore[arg-type]
assert_type(resnet.ResNet(cfg).forward(x), list[Tensor])
