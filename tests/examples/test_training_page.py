"""The code of docs/training.md runs: blocks ``needs=NAME`` where that library is, downloads being random weights."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers.pages import DOCS, blocks_of

PAGE = DOCS / "training.md"


def blocks(needs: str) -> list[tuple[str, str]]:
    """(mark, code) of what needs this library; "" for what needs none."""
    found = [("".join(block.marks), block.code) for block in blocks_of(PAGE) if block.needs == needs]
    assert found
    return found


def run(codes: list[str]) -> dict:
    space: dict = {}
    for code in codes:
        exec(compile(code, PAGE.name, "exec"), space)
    return space


@pytest.fixture
def no_downloads(monkeypatch):
    """torchvision's weights are those of a new ResNet-50."""
    from torchvision.models import resnet50

    from resnet_cuda.weights import sources

    resolve = sources.resolve

    def random_or_file(source, *rest, **options):
        if "IMAGENET1K" in str(source):
            return resnet50().state_dict(), str(source)
        return resolve(source, *rest, **options)

    monkeypatch.setattr(sources, "resolve", random_or_file)


def batch():
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[0, 10:40, 10:40] = 1
    target = {"boxes": torch.tensor([[10.0, 10.0, 40.0, 40.0]]), "labels": torch.tensor([1]), "masks": masks}
    return [torch.rand(3, 64, 64)], [target]


def test_every_block_is_known():
    for block in blocks_of(PAGE):
        assert block.needs in ("", "lightning", "detectron2", "mmdetection")
        assert all(mark == "train" or mark.startswith("file=") for mark in block.marks)


def test_torchvisions_references(no_downloads, tmp_path, monkeypatch):
    """With the arguments of its command line for --data-augmentation lsj, --rpn-score-thresh and --weights-backbone."""
    (mark, module), (_, line) = blocks("")
    name = mark.removeprefix("file=")
    (tmp_path / name).write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "resnet_cuda_models", raising=False)
    space = {
        "args": SimpleNamespace(
            model="maskrcnn_resnet50_fpn", weights=None, weights_backbone="ResNet50_Weights.IMAGENET1K_V1"
        ),
        "num_classes": 5,
        "kwargs": {"trainable_backbone_layers": None, "_skip_resize": True, "rpn_score_thresh": 0.1},
    }
    exec(line, space)
    model = space["model"]
    assert sum(".conv2.offset.weight" in key for key in model.state_dict()) == 13
    assert model.roi_heads.box_predictor.cls_score.out_features == 5
    assert model.rpn.score_thresh == 0.1
    images, targets = batch()
    assert model.transform(images, targets)[0].tensors.shape[-2:] == (64, 64)  # not resized to 800


@pytest.mark.filterwarnings("ignore")
def test_lightning(no_downloads, tmp_path):
    lightning = pytest.importorskip("lightning")
    pytest.importorskip("torchmetrics")
    from resnet_cuda.integrations.torchvision import maskrcnn_resnet50_fpn

    space = run([code for mark, code in blocks("lightning") if mark != "train"])
    detector = space["detector"]
    detector.model.transform.min_size, detector.model.transform.max_size = (64,), 64
    detector.model.roi_heads.score_thresh = 0.0
    before = detector.model.backbone.body.layer4[2].conv2.offset.weight.clone()

    class Trainer(lightning.Trainer):
        """The page's arguments, for one step on the CPU."""

        def __init__(self, **options):
            short = {"fast_dev_run": 1, "logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
            super().__init__(**{**options, **short, "precision": "32-true"})

    samples = list(zip(*batch(), strict=True))
    loader = torch.utils.data.DataLoader(samples, collate_fn=lambda it: tuple(zip(*it, strict=True)))
    space |= {"training_loader": loader, "validation_loader": loader}
    space["lightning"] = type("lightning", (), {"Trainer": Trainer})
    exec(next(code for mark, code in blocks("lightning") if mark == "train"), space)
    metrics = space["trainer"].callback_metrics
    assert torch.isfinite(metrics["loss_mask"])
    assert "segm_map" in metrics
    assert not torch.equal(detector.model.backbone.body.layer4[2].conv2.offset.weight, before)

    from resnet_cuda import load_weights

    space["trainer"].save_checkpoint(tmp_path / "lightning.ckpt")
    plain = maskrcnn_resnet50_fpn(
        weights_backbone=None, num_classes=4, dcn_stages=(False, True, True, True), norm_layer="frozen_bn"
    )
    report = load_weights(plain, tmp_path / "lightning.ckpt")
    assert not report.missing
    assert not report.unexpected


def test_detectron2(monkeypatch):
    folder = os.environ.get("RESNET_CUDA_TEST_DETECTRON2")
    if not folder:
        pytest.skip("set RESNET_CUDA_TEST_DETECTRON2 to the folder of a checkout")
    monkeypatch.syspath_prepend(folder)
    for name in ("fvcore", "iopath", "omegaconf", "pkg_resources"):
        pytest.importorskip(name)
    from detectron2 import model_zoo
    from detectron2.config import instantiate
    from detectron2.modeling import build_backbone

    # A checkout has the files here; only an installed detectron2 has them within the package.
    configs = Path(folder) / "configs"
    monkeypatch.setattr(model_zoo.model_zoo, "get_config_file", lambda name: str(configs / name))
    monkeypatch.setattr(model_zoo, "get_config_file", model_zoo.model_zoo.get_config_file)
    eager, lazy = (run([code]) for _, code in blocks("detectron2"))
    assert any("conv2_offset" in key for key in build_backbone(eager["cfg"]).state_dict())
    backbone = instantiate(lazy["model"].backbone)
    assert {type(it).__module__ for it in backbone.bottom_up.res4} == {"resnet_cuda.integrations.detectron2"}
    assert backbone(torch.rand(1, 3, 64, 64))["p2"].shape == (1, 256, 16, 16)


@pytest.mark.filterwarnings("ignore")
def test_mmdetection(tmp_path, monkeypatch):
    for name in ("mmdet", "mmengine", "mmcv", "pkg_resources"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    if importlib.util.find_spec("mmcv._ext") is None:  # mmcv-lite, of which mmdet's heads ask for names on import

        class WithoutOperators(ModuleType):
            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return None

        monkeypatch.setitem(sys.modules, "mmcv._ext", WithoutOperators("mmcv._ext"))
    from mmdet.registry import MODELS
    from mmengine import Config

    monkeypatch.chdir(tmp_path)
    ((mark, code),) = blocks("mmdetection")
    Path(mark.removeprefix("file=")).write_text(code)
    configuration = Config.fromfile("mask_rcnn_dcn.py")
    assert configuration.model.type == "MaskRCNN"
    backbone = dict(configuration.model.backbone, init_cfg=None)
    model = MODELS.build(backbone)
    assert type(model).__name__ == "ResNetCUDA"
    assert model.layer4[2].conv2.conv_offset.weight.shape[0] == 27
