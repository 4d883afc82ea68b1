"""What weights may be given as: every kind, and what each tells where it cannot be had. Nothing is downloaded."""

from __future__ import annotations

import collections
import hashlib
import sys
import types
from pathlib import Path

import pytest
import torch
from helpers.weight_files import saved

from resnet_cuda.weights import downloads
from resnet_cuda.weights.files import FileError
from resnet_cuda.weights.sources import resolve

DATA = saved({"w": torch.arange(3)})
DIGITS = hashlib.sha256(DATA).hexdigest()[:8]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder of checkpoints, and every address that is asked for."""
    asked = []

    def download(url, place, hash_prefix=None, progress=True):
        asked.append((url, place, hash_prefix))
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return types.SimpleNamespace(checkpoints=checkpoints, asked=asked)


def assert_is_the_file(content):
    assert list(content) == ["w"]
    assert content["w"].tolist() == [0, 1, 2]


def test_mappings_are_themselves():
    given = collections.OrderedDict(w=torch.ones(1))
    content, label = resolve(given)
    assert content is given
    assert label == "state dict"


def test_modules():
    layer = torch.nn.Linear(1, 2)
    content, label = resolve(layer)
    assert list(content) == ["weight", "bias"]
    assert label == "state dict of a Linear"


def test_paths(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(DATA)
    for given in (path, str(path)):
        content, label = resolve(given)
        assert_is_the_file(content)
        assert label == str(path)
    monkeypatch.chdir(tmp_path)
    path.rename("DEFAULT")
    assert_is_the_file(resolve("DEFAULT")[0])  # a path where there is no backbone's name
    assert_is_the_file(resolve("./DEFAULT", "resnet50")[0])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing.pth", FileError, "^missing.pth: source is not a file; the current folder is .+$"),
        ("IMAGENET1K_V2", FileError, "give the full name, such as 'ResNet50_Weights.IMAGENET1K_V2'"),
        ("", FileError, "is not a file"),
        (
            5,
            TypeError,
            "source is 5; it must be a path, a state dict, a module, a torchvision weights enum or its name",
        ),
        (b"name", TypeError, "source is b'name'; it must be a path"),
        (None, TypeError, "source is None; it must be a path"),
        ([("w", 1)], TypeError, "it must be a path"),
        (
            "ftp://host/file.pth",
            ValueError,
            "source is 'ftp://host/file.pth'; allowed addresses begin with http://, https",
        ),
        ("https://host/", ValueError, "must end with the name of a file"),
        ("https://host/..", ValueError, "must end with the name of a file"),
        ("detectron2://../../file", ValueError, "must end with the name of a file"),
        ("detectron2://a/%2e%2e%2f%2e%2e%2ffile", ValueError, "must end with the name of a file"),
        ("hf://owner", ValueError, r"it must be hf://owner/repository\[@revision\]\[/file\]"),
    ],
)
def test_what_is_no_source(source, error, message, tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        resolve(source)
    assert not hub.asked


def test_the_argument_is_named():
    with pytest.raises(TypeError, match="weights is 5; it must be"):
        resolve(5, argument="weights")


def test_names_of_torchvisions_weights(hub):
    models = pytest.importorskip("torchvision.models")
    for member, names in (
        (models.ResNet50_Weights.IMAGENET1K_V2, ("IMAGENET1K_V2", "DEFAULT", "ResNet50_Weights.DEFAULT")),
        (models.detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1, ("MaskRCNN_ResNet50_FPN_Weights.COCO_V1",)),
    ):
        place = hub.checkpoints / Path(member.url).name
        for given in (member, str(member), *names):
            hub.asked.clear()
            with pytest.raises(FileError, match="cannot be downloaded") as caught:
                resolve(given, "resnet50")
            assert str(caught.value).startswith(f"{place}: ")
            assert member.url in str(caught.value)
            assert hub.asked == [(member.url, str(place), place.stem.rpartition("-")[2])]


def test_torchvisions_files_are_checked_and_read_without_unpickling(hub, monkeypatch):
    models = pytest.importorskip("torchvision.models")
    member = models.ResNet18_Weights.IMAGENET1K_V1
    place = hub.checkpoints / Path(member.url).name
    place.write_bytes(DATA)
    with pytest.raises(FileError, match="its SHA256 does not begin with f37072fd"):
        resolve(member)
    monkeypatch.setattr(downloads, "_sha256", lambda path: "f37072fd" + "0" * 56)
    content, label = resolve(member)
    assert_is_the_file(content)
    assert label == "torchvision ResNet18_Weights.IMAGENET1K_V1"
    place.write_bytes(saved({"w": torch.nn.Linear(1, 1)}))
    with pytest.raises(FileError, match="refused: it asks for torch.nn.modules.linear.Linear"):
        resolve("DEFAULT", "resnet18")
    assert not hub.asked


@pytest.mark.parametrize(
    ("source", "backbone", "message"),
    [
        ("BEST", "resnet50", "source is 'BEST'; allowed for resnet50 are IMAGENET1K_V1, IMAGENET1K_V2"),
        ("DEFAULT", "resnet7", "source is 'DEFAULT'; torchvision has no model resnet7"),
        ("ResNet50_Weights.BEST", None, "allowed of ResNet50_Weights are IMAGENET1K_V1, IMAGENET1K_V2"),
        ("ResNet7_Weights.DEFAULT", None, "'ResNet7_Weights.DEFAULT'; this torchvision has no such weights enum"),
        ("os_Weights.system", None, "this torchvision has no such weights enum"),
    ],
)
def test_unknown_names(source, backbone, message, hub):
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match=message):
        resolve(source, backbone)
    assert not hub.asked


def test_names_without_torchvision(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for source in ("DEFAULT", "ResNet50_Weights.DEFAULT"):
        with pytest.raises(
            ValueError, match=f"source is '{source}'; a name needs torchvision, which cannot be imported"
        ):
            resolve(source, "resnet50")


def test_downloads(hub, monkeypatch):
    def download(url, place, hash_prefix=None, progress=True):
        hub.asked.append((url, hash_prefix))
        Path(place).write_bytes(DATA)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    url = f"https://host/folder/name-{DIGITS}.pth?download=1"
    for _ in range(2):
        content, label = resolve(url)
        assert_is_the_file(content)
        assert label == url
    assert hub.asked == [(url, DIGITS)]
    assert [path.name for path in hub.checkpoints.iterdir()] == [f"name-{DIGITS}.pth"]


def test_files_of_detectron2s_zoo_keep_their_folders(hub):
    """MSRA/R-50.pkl and torchvision/R-50.pkl are two files."""
    for source in ("MSRA", "torchvision"):
        place = hub.checkpoints / "detectron2" / "ImageNetPretrained" / source / "R-50.pkl"
        url = f"https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/{source}/R-50.pkl"
        for address in (url, f"detectron2://ImageNetPretrained/{source}/R-50.pkl"):
            with pytest.raises(FileError, match="no network") as caught:
                resolve(address)
            assert str(caught.value) == (
                f"{place}: it is not there, and cannot be downloaded (no network); put {url} there"
            )
        place.write_bytes(DATA)
        assert_is_the_file(resolve(url)[0])


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6.pth", "d4b0c5d6"),
        ("R-50.pkl", None),
        ("model_final_280758.pkl", None),
        ("model-20200205.pth", None),  # a date
        ("model-0676ba61", None),
        ("model-0676BA61.pth", None),
    ],
)
def test_hashes_in_names(name, digits):
    assert downloads.hash_of_name(name) == digits


class NotThereError(Exception):
    """EntryNotFoundError"""


class NotHereError(NotThereError):
    """LocalEntryNotFoundError"""


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    """huggingface_hub with the files of one repository; an exception in the place of a file is raised."""
    held: dict[str, bytes | Exception] = {}
    asked = []

    def hf_hub_download(repository, name, revision=None):
        asked.append((repository, name, revision))
        if name not in held:
            raise NotThereError(name)
        if isinstance(held[name], Exception):
            raise held[name]
        path = tmp_path / "blob"
        path.write_bytes(held[name])
        return str(path)

    package = types.ModuleType("huggingface_hub")
    package.hf_hub_download = hf_hub_download
    package.errors = types.ModuleType("huggingface_hub.errors")
    package.errors.EntryNotFoundError = NotThereError
    package.errors.LocalEntryNotFoundError = NotHereError
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", package.errors)
    return types.SimpleNamespace(held=held, asked=asked)


def test_hugging_face(hugging_face):
    hugging_face.held["pytorch_model.bin"] = DATA
    assert_is_the_file(resolve("hf://timm/resnet50.a1_in1k")[0])
    assert_is_the_file(resolve("hf://timm/resnet50.a1_in1k@v1/pytorch_model.bin")[0])
    assert hugging_face.asked == [
        ("timm/resnet50.a1_in1k", "model.safetensors", None),
        ("timm/resnet50.a1_in1k", "pytorch_model.bin", None),
        ("timm/resnet50.a1_in1k", "pytorch_model.bin", "v1"),
    ]
    hugging_face.held["folder/model"] = DATA
    assert_is_the_file(resolve("hf://timm/other/folder/model")[0])


def test_hugging_face_refuses(hugging_face):
    with pytest.raises(FileError, match="has no file model.safetensors or pytorch_model.bin"):
        resolve("hf://timm/resnet50")
    with pytest.raises(FileError, match="has no file other.pth$"):
        resolve("hf://timm/resnet50/other.pth")
    hugging_face.held["model.safetensors"] = NotHereError("offline")
    with pytest.raises(FileError, match="run: hf download timm/resnet50 model.safetensors --revision v2$"):
        resolve("hf://timm/resnet50@v2")
    hugging_face.held["model.safetensors"] = RuntimeError("401")
    with pytest.raises(FileError, match="hf://timm/resnet50: it cannot be downloaded: 401"):
        resolve("hf://timm/resnet50")


def test_hugging_face_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="needs the package huggingface_hub: pip install huggingface_hub"):
        resolve("hf://timm/resnet50")
