"""Folded convolutions as optimize_for_inference makes them, and arguments for one."""

from __future__ import annotations

import torch
from torch import nn

from resnet_cuda.inference.convolution import FoldedConv2d


def folded(relu=True, bias=True, dtype=torch.float32, **geometry):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, **{"kernel_size": 3, **geometry}, bias=bias).to(dtype)
    FoldedConv2d.take_over(conv, conv.weight.detach(), conv.bias.detach() if bias else None, relu)
    return conv.eval()


def problem(conv, dtype=torch.float32, batch=2):
    torch.manual_seed(1)
    x = torch.randn(batch, 8, 11, 14).to(dtype).contiguous(memory_format=torch.channels_last)
    residual = torch.randn_like(conv.functional(x)).contiguous(memory_format=torch.channels_last)
    return x, residual
