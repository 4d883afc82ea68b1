"""Data sets of the user's own: found from the current folder, called with what they accept, named in errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from detection.data.coco_dataset import CocoInstances
from detection.data.custom import check_dataset, class_names, dataset_class, make_dataset, targets_of
from detection.data.loader import evaluation_loader, training_loader
from torch.utils.data import Dataset

MODULE = """
class Base:
    def __len__(self): return 1
    def __getitem__(self, index): return index
    def class_names(self): return ["one"]

class Nothing(Base):
    def __init__(self): self.got = ()
class Optional(Base):
    def __init__(self, size=3): self.got = (size,)
class Named(Base):
    def __init__(self, annotations, images=None, damaged="refuse"): self.got = (images, annotations, damaged)
class Skips(Base):
    def __init__(self, images, damaged="skip"): self.got = damaged
class Wants(Base):
    def __init__(self, images, damaged): self.got = damaged
class Any(Base):
    def __init__(self, **options): self.got = options
class ByPosition(Base):
    def __init__(self, root, file, size=3): self.got = (root, file, size)
class Three(Base):
    def __init__(self, a, b, c): self.got = (a, b, c)
class Four(Base):
    def __init__(self, a, b, c, d): pass
class Extra(Base):
    def __init__(self, images, other): pass
class Nameless:
    def __init__(self): pass
    def __len__(self): return 1
    def __getitem__(self, index): return index
class Same(Nothing):
    def class_names(self): return ["one", "one"]
def function(): pass
class Outer:
    Inner = Nothing
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the current folder, which is not on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    (tmp_path / "my_data_set.py").write_text(MODULE)
    yield "my_data_set"
    sys.modules.pop("my_data_set", None)


def test_the_arguments_that_a_class_accepts(module):
    images, annotations = Path("i"), Path("a")
    assert make_dataset(f"{module}:Nothing", None, None).got == ()
    assert make_dataset(f"{module}:Outer.Inner", None, None).got == ()
    assert make_dataset(f"{module}:Optional", None, None).got == (3,)
    assert make_dataset(f"{module}:Optional", None, None, "refuse").got == (3,)
    assert make_dataset(f"{module}:Skips", images, None).got == "skip"  # its own default
    assert make_dataset(f"{module}:Skips", images, None, "refuse").got == "refuse"
    assert make_dataset(f"{module}:Wants", images, None).got == "refuse"
    assert make_dataset(f"{module}:Named", images, annotations, "skip").got == (images, annotations, "skip")
    assert make_dataset(f"{module}:Named", None, annotations).got == (None, annotations, "refuse")
    assert make_dataset(f"{module}:Any", images, None).got == {"images": images}
    assert make_dataset(f"{module}:ByPosition", images, annotations).got == (images, annotations, 3)
    assert make_dataset(f"{module}:Three", images, annotations, "skip").got == (images, annotations, "skip")


@pytest.mark.parametrize(
    ("name", "images", "annotations", "damaged", "reason"),
    [
        ("Nothing", "i", None, "refuse", "does not accept images; leave --images out"),
        ("Optional", None, None, "skip", "does not accept damaged; leave --damaged out"),
        ("Nothing", None, None, "skip", "does not accept damaged; leave --damaged out"),
        ("Optional", None, "a", "refuse", "does not accept annotations"),
        ("Named", "i", None, "refuse", "needs annotations; give --annotations"),
        ("ByPosition", "i", None, "refuse", "needs file; give --annotations"),
        ("ByPosition", "i", "a", "skip", "does not accept damaged"),
        ("Four", "i", "a", "refuse", "needs a, b, c, d; it can be called with images, annotations, damaged only"),
        ("Extra", "i", None, "refuse", "needs images, other; it can be called with"),
        ("Missing", None, None, "refuse", "has no attribute 'Missing'"),
        ("function", None, None, "refuse", "it must be a class"),
    ],
)
def test_what_does_not_fit_is_named(module, name, images, annotations, damaged, reason):
    with pytest.raises(ValueError, match=rf"--dataset {module}:{name}:? .*{reason}"):
        make_dataset(f"{module}:{name}", images, annotations, damaged)


def test_modules_that_fail_are_named(module, tmp_path):
    for name in ("module", "module:", ":Class"):
        with pytest.raises(ValueError, match="it must be package.module:Class"):
            dataset_class(name)
    with pytest.raises(ValueError, match="ModuleNotFoundError: No module named 'no_such_module'"):
        dataset_class("no_such_module:Class")
    (tmp_path / "broken_data_set.py").write_text("def f(:\n")
    with pytest.raises(ValueError, match="--dataset broken_data_set:A: SyntaxError: invalid syntax"):
        dataset_class("broken_data_set:A")


def test_class_names_are_required(module):
    with pytest.raises(TypeError, match="data set Nameless has no method class_names"):
        make_dataset(f"{module}:Nameless", None, None)
    with pytest.raises(ValueError, match=r"class_names\(\) of data set Same gives \['one', 'one'\]"):
        make_dataset(f"{module}:Same", None, None)
    assert class_names(make_dataset(f"{module}:Nothing", None, None)) == ["one"]


@pytest.mark.parametrize("lacking", ["__init__", "__getitem__", "__len__"])
def test_a_method_that_a_custom_data_set_lacks_is_named(lacking):
    """At once, by name, before a worker starts or a model is built."""
    methods = {"__init__": lambda self: None, "__getitem__": lambda self, i: None, "__len__": lambda self: 1}
    del methods[lacking]
    broken = type("Broken", (Dataset,), methods)
    with pytest.raises(TypeError, match=rf"Broken lacks {lacking}; it must define"):
        check_dataset(broken)
    with pytest.raises(TypeError, match=rf"Broken lacks {lacking}; it must define"):
        training_loader(broken(), [], batch=1, workers=0, seed=0, targets="boxes")
    with pytest.raises(TypeError, match=rf"Broken lacks {lacking}; it must define"):
        evaluation_loader(broken(), workers=0, targets="boxes")


def test_targets(coco):
    assert targets_of(CocoInstances(*coco)) == "masks"
    assert targets_of(CocoInstances(*coco, targets="boxes")) == "boxes"
    for keys, expected in (({"masks"}, "masks"), ({"keypoints"}, "keypoints"), (set(), "boxes")):
        assert targets_of([(torch.zeros(3, 2, 2), dict.fromkeys({"boxes", "labels", *keys}))]) == expected
