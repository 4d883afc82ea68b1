"""``python -m resnet_cuda export``."""

from __future__ import annotations

import importlib.util

import pytest
from helpers.processes import run_python

import resnet_cuda.export.onnx_file as onnx_file
from resnet_cuda.__main__ import main

YAML = """
MODEL:
  BACKBONE:
    CONV_BODY: "R-50-C4"
  RESNETS:
    STEM_OUT_CHANNELS: 8
    WIDTH_PER_GROUP: 8
    RES2_OUT_CHANNELS: 16
    STAGE_WITH_DCN: (False, True, False, False)
    WITH_MODULATED_DCN: True
"""


@pytest.mark.parametrize("exporter", [[], ["--exporter", "torchscript"]])
def test_a_configuration_becomes_a_file(exporter, tmp_path, capsys):
    for name in ("onnx",) if exporter else ("onnx", "onnxscript"):
        pytest.importorskip(name)
    config, out = tmp_path / "narrow.yaml", tmp_path / "model.onnx"
    config.write_text(YAML)
    status = main(["export", "--config", str(config), "--out", str(out), "--size", "48", "64", "--static", *exporter])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert out.is_file()
    assert f"{out}: opset 20, images (1, 3, 48, 64) -> res4" in printed.out
    if importlib.util.find_spec("onnxruntime"):
        assert "ONNX Runtime gives PyTorch's outputs to " in printed.out
    assert "no --weights: the file has random ones" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "resnet51"], "unknown backbone_name 'resnet51'"),
        (["--backbone", "resnet18", "--dcn", "011"], "--dcn is '011'; it must be four of 0 and 1"),
        (["--config", "no.yaml"], "no.yaml"),
        (["--config", "narrow.yaml", "--dcn", "0111"], "--dcn goes with --backbone"),
        (["--backbone", "resnet18", "--weights", "no.pth"], "no.pth"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "narrow.yaml").write_text(YAML)
    assert main(["export", *arguments, "--out", "model.onnx"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "no --weights" not in line]
    assert not any("exporting" in line for line in lines)
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("missing", [{"onnx"}, {"onnx", "onnxscript"}])
def test_missing_packages_are_named(missing, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        onnx_file.importlib.util,
        "find_spec",
        lambda name, *rest: None if name in missing else find("json" if name.startswith("onnx") else name, *rest),
    )
    out = str(tmp_path / "model.onnx")
    assert main(["export", "--backbone", "resnet18", "--out", out]) == 1
    names = " and ".join(sorted(missing))
    error = capsys.readouterr().err
    assert error == f"resnet_cuda: export_onnx needs {names}: pip install {' '.join(sorted(missing))}\n"


def test_the_package_is_reached_without_an_import_of_its_own():
    """And costs nothing where it is not used."""
    script = (
        "import sys, resnet_cuda\n"
        "assert 'resnet_cuda.export' not in sys.modules\n"
        "assert 'export' in dir(resnet_cuda)\n"
        "assert callable(resnet_cuda.export.export_onnx)\n"
        "assert not {'onnx', 'onnxscript', 'torchvision'} & set(sys.modules)\n"
        "assert not hasattr(resnet_cuda, 'exports')\n"
    )
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr


def test_help_and_wrong_arguments():
    shown = run_python("-m", "resnet_cuda", "export", "--help")
    assert shown.returncode == 0
    assert "--static" in shown.stdout
    assert "--exporter" in shown.stdout
    neither = run_python("-m", "resnet_cuda", "export", "--out", "x.onnx")
    assert neither.returncode == 2
    assert "one of the arguments --config --backbone is required" in neither.stderr
