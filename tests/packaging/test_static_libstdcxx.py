"""A library with a libstdc++ of its own, as some compiler wrappers link it: no stream may be used in it.

Two libstdc++ in one process share the tables of their locales; an ostream of the second crashes (GCC 13) or stops at
the first number (GCC 12).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.cpp_library import compiler
from helpers.processes import run_python

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "resnet_cuda"
CALLS = """
import torch
from resnet_cuda import _extension, ops

assert _extension.build_info()["version"] == "1.2.3", _extension.build_info()
x, weight = torch.randn(2, 4, 6, 7), torch.randn(5, 4, 3, 3)
offset = torch.zeros(2, 18, 6, 7)
bias = torch.zeros(5, requires_grad=True)
found = ops.deform_conv2d(x, offset, weight, bias, padding=1)
torch.testing.assert_close(found, torch.nn.functional.conv2d(x, weight, padding=1), atol=1e-4, rtol=1e-4)
found.sum().backward()
torch.testing.assert_close(bias.grad, torch.full((5,), 84.0))
scale, shift = torch.rand(4), torch.randn(4)
found = ops.frozen_bn_relu(x, scale, shift)
torch.testing.assert_close(found, (x * scale[:, None, None] + shift[:, None, None]).relu())


def said(call, *arguments, **others):
    try:
        call(*arguments, **others)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
    else:
        raise AssertionError("no error")


said(ops.deform_conv2d, x, torch.zeros(2, 17, 6, 7), weight, padding=1)
said(ops.deform_conv2d, x, offset, weight[:, :3], padding=1)
said(ops.deform_conv2d, x, offset, weight, torch.zeros(6), padding=1)
said(ops.deform_conv2d, x, offset, weight, padding=1 << 40)
said(ops.deform_conv2d, x, offset, weight.double(), padding=1)
said(ops.frozen_bn_relu, x, torch.rand(10), shift)
said(ops.frozen_bn_relu, x, scale, shift, torch.zeros(2, 4, 6, 70))
# The failure of one of torch's own functions.
huge = torch.zeros(1, 4, 1, 1).expand(1 << 40, 4, 16, 16)
said(ops.frozen_bn_relu, huge, scale, shift)
"""
SAID = [
    "deform_conv2d: offset is of shape (2, 17, 6, 7); it must be (N, 2*G*kh*kw, Ho, Wo) with N = 2, kh*kw = 9, Ho = 6, "
    "Wo = 7, G dividing C = 4",
    "deform_conv2d: weight is of shape (5, 3, 3, 3); it must be (O, C/groups, kh, kw) with C = 4 of input",
    "deform_conv2d: bias is of shape (6,); it must be (O,) = (5,)",
    "deform_conv2d: stride, padding or dilation is 1099511627776; it must be below 2^31",
    "deform_conv2d: weight is torch.float64; it must be torch.float32 where input is torch.float32",
    "frozen_bn_relu: scale is of shape (10,); it must be (C,) = (4,), the channels of input",
    "of input's shape, (2, 4, 6, 7)",
    "frozen_bn_relu: cannot allocate 4503599627370496 bytes for a tensor of shape (1099511627776, 4, 16, 16) of "
    "torch.float32 on cpu: ",
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The CPU library's portable part, at -O1: what is compiled for AVX has no error texts."""
    from build_native import make_plan, native

    ask = [*compiler(), "-print-file-name=libstdc++.a"]
    archive = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
    if not Path(archive).is_file():
        pytest.skip(f"{ask[0]} has no libstdc++.a")
    folder = tmp_path_factory.mktemp("static")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native.platform, "machine", lambda: "any")
        patch.setenv("RESNET_CUDA_BUILD", "cpu")
        patch.setenv("CXXFLAGS", "-O1")
        patch.setenv("LDFLAGS", "-static-libstdc++")
        outputs = native.write_ninja_file(make_plan(), folder, "1.2.3")
        subprocess.run([native.find_ninja(), "-C", str(folder), "--quiet"], check=True)
    return next(path for name, path in outputs.items() if name.startswith("_C"))


def test_both_operators_with_good_and_bad_arguments(library, tmp_path):
    needed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True).stdout
    assert "libstdc++" not in "".join(line for line in needed.splitlines() if "NEEDED" in line)
    shutil.copytree(PACKAGE, tmp_path / "resnet_cuda", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy2(library, tmp_path / "resnet_cuda")
    result = run_python("-c", CALLS, path=tmp_path, cwd=tmp_path)
    assert result.returncode == 0, (result.returncode, result.stdout, result.stderr)
    found = result.stdout.splitlines()
    assert len(found) == len(SAID)
    for said, expected in zip(found, SAID, strict=True):
        assert expected in said  # to its end: a text that is cut off lacks what comes after a number


@pytest.mark.skipif(not shutil.which("nm"), reason="binutils are not installed")
def test_no_stream_is_used_by_torchs_inline_functions_either(library):
    for path in library.parent.rglob("*.o"):
        names = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout
        # torch's headers include <iostream>, whose initialiser is in every object; nothing may be written to.
        used = [line for line in names.splitlines() if re.search("ostream|streambuf|stringbuf|std::locale", line)]
        assert not used, (path.name, used[:3], torch.__version__)


def sources():
    found = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cuh", ".cpp", ".cu")]
    assert len(found) > 20
    return {path: path.read_text() for path in found}


def test_no_stream_in_the_sources():
    headers = re.compile(
        r"#\s*include\s*<(sstream|iostream|ostream|istream|fstream|locale|iomanip|regex|format|print)>"
    )
    streams = re.compile(r"\bstd::(cout|cerr|clog|locale|\w*stream)\b")
    for path, text in sources().items():
        assert not headers.search(text), path
        assert not streams.search(text), path


def test_only_one_header_includes_torchs():
    """It puts checks without streams in the place of torch's."""
    assert [path.name for path, text in sources().items() if "<torch/csrc" in text] == ["torch_stable.h"]
