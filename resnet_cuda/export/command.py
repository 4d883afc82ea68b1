"""``python -m resnet_cuda export``: a backbone, by configuration or by name, as an ONNX file."""

from __future__ import annotations

import argparse
import sys

from torch import nn

from resnet_cuda._console import show
from resnet_cuda.backbones import build_backbone
from resnet_cuda.config import get_cfg
from resnet_cuda.export.onnx_file import EXPORTERS, OPSET, export_onnx, need_packages
from resnet_cuda.torchvision_backbone import resnet_fpn_backbone
from resnet_cuda.weights import load_weights


def add_export(commands: argparse._SubParsersAction) -> None:
    it = commands.add_parser(
        "export",
        help="a backbone as an ONNX file",
        description="Writes a backbone as an ONNX file, runs ONNX's checker over it and, where it is installed, ONNX "
        "Runtime on images of two sizes beside PyTorch. Needs onnx and onnxscript.",
    )
    source = it.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="maskrcnn-benchmark's configuration (YAML)")
    source.add_argument("--backbone", metavar="NAME", help="resnet50, ... with torchvision's pyramid")
    it.add_argument("--dcn", metavar="BITS", help="with --backbone: which of C2 to C5 are deformable, such as 0111")
    it.add_argument("--weights", metavar="FILE", help="what load_weights takes; random weights without it")
    it.add_argument("--out", metavar="FILE", required=True, help="the file to write, such as model.onnx")
    size = {"nargs": 2, "type": int, "metavar": ("H", "W"), "default": (480, 640)}
    it.add_argument("--size", help="of the images to trace with and to compare on (480 640)", **size)
    it.add_argument("--opset", type=int, default=OPSET, help=f"version of ONNX's operators ({OPSET})")
    it.add_argument("--exporter", choices=EXPORTERS, help="torch.onnx.export with dynamo=True (the default) or False")
    it.add_argument("--static", action="store_true", help="fix the size and a batch of 1 instead of taking any")
    it.add_argument("--no-check", action="store_true", help="only write the file")


def run_export(chosen: argparse.Namespace) -> int:
    """Returns the exit status: 1, with one sentence on stderr, if the file or the reports could not be written."""
    status = 0
    try:
        need_packages(chosen.exporter)
        model = _network(chosen)
        if chosen.weights is None:
            print("resnet_cuda: no --weights: the file has random ones", file=sys.stderr)
        else:
            status = show(load_weights(model, chosen.weights))
        checked = "" if chosen.no_check else ", then checking the file"
        print(f"resnet_cuda: exporting{checked}; this takes about a minute", file=sys.stderr)
        report = export_onnx(
            model,
            chosen.out,
            size=chosen.size,
            dynamic=not chosen.static,
            opset=chosen.opset,
            exporter=chosen.exporter,
            check=not chosen.no_check,
        )
    except (ValueError, KeyError, OSError, ImportError, RuntimeError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"resnet_cuda: {text}", file=sys.stderr)
        return 1
    return status or show(report, f"{chosen.out} is written; ")


def _network(chosen: argparse.Namespace) -> nn.Module:
    if chosen.config is not None:
        if chosen.dcn is not None:
            raise ValueError("--dcn goes with --backbone; a configuration has MODEL.RESNETS.STAGE_WITH_DCN")
        cfg = get_cfg()
        cfg.merge_from_file(chosen.config)
        return build_backbone(cfg)
    dcn = chosen.dcn or "0000"
    if len(dcn) != 4 or set(dcn) - set("01"):
        raise ValueError(f"--dcn is {dcn!r}; it must be four of 0 and 1, for C2 to C5, such as 0111")
    return resnet_fpn_backbone(chosen.backbone, dcn_stages=[bit == "1" for bit in dcn])
