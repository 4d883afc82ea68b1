"""maskrcnn-benchmark's own detectors, with its layers and resnet.py replaced, against its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from same import assert_near

torchvision = pytest.importorskip("torchvision")

from resnet_cuda.integrations import _maskrcnn_benchmark_layers as layers  # noqa: E402

VARIABLE = "RESNET_CUDA_TEST_MASKRCNN_BENCHMARK"
SCRIPT = Path(__file__).with_name("run_maskrcnn_benchmark.py")


@pytest.fixture(scope="module")
def checkout():
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"set {VARIABLE} to the folder of a checkout of maskrcnn-benchmark")
    for name in ("yacs", "cv2", "pycocotools"):
        pytest.importorskip(name)
    return folder


def python(*arguments, fails=False):
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert (ended.returncode != 0) == fails, ended.stderr
    return ended.stderr if fails else ended.stdout


@pytest.mark.parametrize(
    "config",
    [
        "e2e_mask_rcnn_R_50_C4_1x.yaml",
        "e2e_keypoint_rcnn_R_50_FPN_1x.yaml",
        "e2e_faster_rcnn_X_101_32x8d_FPN_1x.yaml",
        "dcn/e2e_mask_rcnn_mdconv_R_50_FPN_1x.yaml",
        "dcn/e2e_faster_rcnn_dconv_R_50_FPN_1x.yaml",
        "gn_baselines/e2e_mask_rcnn_R_50_FPN_1x_gn.yaml",
        "retinanet/retinanet_R-50-FPN_1x.yaml",
        "rpn_R_50_FPN_1x.yaml",
    ],
)
def test_a_step_and_detections_are_its_own(checkout, config, tmp_path):
    for who in ("theirs", "ours"):
        python(str(SCRIPT), who, checkout, config, str(tmp_path / "results.pt"))
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    ours, theirs = results["ours"], results["theirs"]
    for kind, tolerance in (("losses", 1e-6), ("gradients", 1e-4), ("found", 1e-4)):
        assert ours[kind].keys() == theirs[kind].keys()
        assert theirs[kind]
        for name, value in theirs[kind].items():
            if value.any():
                assert_near(ours[kind][name], value, f"{kind}: {name}", tolerance)


def test_every_module_imports(checkout):
    """Without its compiled part, apex, torch._six and np.float; data and engine need cityscapesscripts."""
    code = f"""
import importlib, pkgutil, sys
sys.path.insert(0, {checkout!r})
from resnet_cuda.integrations.maskrcnn_benchmark import install
install()
install()
import maskrcnn_benchmark
for module in pkgutil.walk_packages(maskrcnn_benchmark.__path__, "maskrcnn_benchmark."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        print(module.name, error.name)
from maskrcnn_benchmark import layers
from maskrcnn_benchmark.layers.misc import interpolate
assert "maskrcnn_benchmark._C" not in sys.modules and not hasattr(__import__("numpy"), "float")
print(layers.DFConv2d.__module__, layers.FrozenBatchNorm2d(3).eps)
"""
    *failed, last = python("-c", code).splitlines()
    assert last == "resnet_cuda.layers.df_conv 0.0"
    allowed = set() if importlib.util.find_spec("cityscapesscripts") else {"cityscapesscripts"}
    assert {line.split()[1] for line in failed} <= allowed, failed


def test_its_files_are_not_changed_and_no_compiled_ones_are_written(checkout, tmp_path):
    package = tmp_path / "maskrcnn_benchmark" / "utils"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    source = "import torch\nPY3 = torch._six.PY3\n"
    (package / "imports.py").write_text(source)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from resnet_cuda.integrations.maskrcnn_benchmark import install
install()
from maskrcnn_benchmark.utils.imports import PY3
print(PY3)
"""
    assert python("-c", code).split() == ["True"]
    assert (package / "imports.py").read_text() == source
    assert not list(package.rglob("imports*.pyc"))


def test_too_late_is_an_error(checkout):
    code = f"""
import sys, types
sys.path.insert(0, {checkout!r})
sys.modules["maskrcnn_benchmark.layers"] = types.ModuleType("maskrcnn_benchmark.layers")
from resnet_cuda.integrations.maskrcnn_benchmark import install
install()
"""
    assert "RuntimeError: maskrcnn_benchmark.layers imported already; call" in python("-c", code, fails=True)


def test_without_a_checkout_the_error_says_what_to_install():
    code = "from resnet_cuda.integrations.maskrcnn_benchmark import install\ninstall()"
    assert "needs a checkout of maskrcnn-benchmark on the Python path" in python("-c", code, fails=True)


def test_stand_in_for_apex_refuses_half_precision():
    from resnet_cuda.integrations.maskrcnn_benchmark import _init, _initialize, _scale_loss

    assert _initialize("model", "optimizer", opt_level="O0") == ("model", "optimizer")
    with pytest.raises(ValueError, match="opt_level is 'O1'; it must be 'O0'"):
        _initialize("model", "optimizer", opt_level="O1")
    with pytest.raises(ValueError, match="enabled is True; it must be False"):
        _init(enabled=True)
    with _scale_loss("loss", None) as loss:
        assert loss == "loss"


def test_nms_counts_the_last_pixel():
    """IoU 9*10/(100+100-90) = 0.818 with the last pixels, 8*9/(81+81-72) = 0.8 without."""
    boxes, scores = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 10.0, 9.0]]), torch.tensor([0.5, 0.9])
    assert layers.nms(boxes, scores, 0.81).tolist() == [1]
    assert layers.nms(boxes, scores, 0.82).tolist() == [1, 0]
    assert torchvision.ops.nms(boxes, scores, 0.81).tolist() == [1, 0]


def test_focal_loss_by_hand():
    """Its CPU formula, and where that formula's logarithm is infinite."""
    logits = torch.randn(5, 3, dtype=torch.float64)
    targets = torch.tensor([0, 1, 3, -1, 2])
    p = logits.sigmoid()
    expected = 0.0
    for row, target in enumerate(targets.tolist()):
        for column in range(3):
            if target == column + 1:
                expected -= 0.25 * (1 - p[row, column]) ** 2 * p[row, column].log()
            elif target >= 0:
                expected -= 0.75 * p[row, column] ** 2 * (1 - p[row, column]).log()
    loss = layers.SigmoidFocalLoss(2.0, 0.25)
    torch.testing.assert_close(loss(logits, targets), expected)
    assert loss(torch.tensor([[200.0, -200.0]]), torch.tensor([2])).item() == pytest.approx(0.75 * 200 + 0.25 * 200)


def test_smooth_l1_by_hand():
    got, wanted = torch.tensor([0.0, 0.05, 2.0]), torch.zeros(3)
    parts = torch.tensor([0.0, 0.5 * 0.05**2 * 9, 2 - 0.5 / 9])
    torch.testing.assert_close(layers.smooth_l1_loss(got, wanted, size_average=False), parts.sum())
    torch.testing.assert_close(layers.smooth_l1_loss(got, wanted), parts.mean())


def test_deformable_layers():
    x = torch.randn(1, 4, 6, 7, dtype=torch.float64)
    pack = layers.ModulatedDeformConvPack(4, 5, 3, padding=1, deformable_groups=2).double()
    with torch.no_grad():
        pack.conv_offset_mask.weight.normal_()
    predicted = pack.conv_offset_mask(x)
    offset, mask = predicted[:, :36], predicted[:, 36:].sigmoid()
    truth = torchvision.ops.deform_conv2d(x, offset, pack.weight, pack.bias, padding=1, mask=mask)
    torch.testing.assert_close(pack(x), truth)
    torch.testing.assert_close(layers.modulated_deform_conv(x, offset, mask, pack.weight, pack.bias, 1, 1), truth)
    truth = torchvision.ops.deform_conv2d(x, offset, pack.weight, padding=1)
    torch.testing.assert_close(layers.deform_conv(x, offset, pack.weight, 1, 1, 1, 1, 2), truth)


@pytest.mark.parametrize("name", ["DeformRoIPooling", "deform_roi_pooling"])
def test_what_is_not_there_says_so(name):
    with pytest.raises(NotImplementedError, match=f"maskrcnn_benchmark.layers.{name} is not in resnet_cuda"):
        layers.LAYERS[name](0.25, 7, 256, True)


def test_empty_tensors_keep_a_gradient():
    x = torch.zeros(0, 3, 4, 4, requires_grad=True)
    y = layers.NewEmptyTensorOp.apply(x, (0, 5, 2, 2))
    assert y.shape == (0, 5, 2, 2)
    y.sum().backward()
    assert x.grad.shape == x.shape
