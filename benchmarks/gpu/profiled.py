"""What ncu watches: one chunk of our deform_conv2d, forward and backward, in bfloat16 as in phase 4."""

from __future__ import annotations

import argparse

import torch

import resnet_cuda
from benchmarks.gpu import names
from benchmarks.gpu.layers import layer, make_sets
from benchmarks.gpu.timing import synchronize
from benchmarks.gpu.variants import VARIANTS, gradients

IMAGES = {"C3": 1, "C4": 2, "C5": 4}  # of a chunk at batch 8: what 48 MB hold


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stage", choices=tuple(IMAGES), default="C4")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    device = torch.device(chosen.device)
    if device.type == "cuda":
        resnet_cuda.use_backend("native")
    variant = VARIANTS[names.OURS_BFLOAT16]
    sets = make_sets(layer(chosen.stage, IMAGES[chosen.stage], chosen.quick), device, 1)
    tensors = variant.cast(sets[0], differentiable=True)
    gradients(variant, tensors)()  # libraries, workspaces and choices of algorithms are there from now on
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.profiler.start()
    gradients(variant, tensors)()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.profiler.stop()


if __name__ == "__main__":
    main()
