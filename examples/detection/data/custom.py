"""Data set classes of the user's own: found, called, and what they lack named before training starts."""

from __future__ import annotations

import importlib
import inspect
import operator
import os
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError, SampleError


class DatasetError(TypeError, ValueError):
    """A class that cannot be used as a data set."""


LOOKED_AT = 16  # samples, to see what the targets hold
BACKGROUND = ("background", "__background__")
METHODS = ("__init__", "__getitem__", "__len__")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_dataset(dataset: object) -> None:
    """Checks that a data set, or its class, defines ``__init__``, ``__getitem__`` and ``__len__``.

    Raises:
        DatasetError: naming the class and the methods that it lacks. Those that ``torch.utils.data.Dataset`` has
            itself (a ``__getitem__`` that only raises, ``object``'s ``__init__``) do not count.
    """
    kind = dataset if isinstance(dataset, type) else type(dataset)
    own = [base for base in kind.__mro__ if base not in (object, Dataset) and base.__module__ != "typing"]
    missing = [method for method in METHODS if not any(method in vars(base) for base in own)]
    if missing:
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise DatasetError(f"data set {name} lacks {', '.join(missing)}; it must define {', '.join(METHODS)}")


def class_names(dataset: object) -> list[str]:
    """The data set's names of the labels 1, 2, ...

    Raises:
        DatasetError, ValueError: where it has no method ``class_names``, or this gives no list of distinct names, or
            begins with the background, which is label 0 and has no name.
    """
    kind = type(dataset).__qualname__
    if not callable(getattr(dataset, "class_names", None)):
        raise DatasetError(f"data set {kind} has no method class_names; it must give the names of the labels 1, 2, ...")
    names = list(dataset.class_names())
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"class_names() of data set {kind} gives {names!r}; it must give a list of distinct names")
    if not isinstance(dataset, CocoInstances) and names[0].casefold() in BACKGROUND:
        raise ValueError(
            f"class_names() of data set {kind} begins with {names[0]!r}; leave it out, "
            "the names are of the labels 1, 2, ..."
        )
    return names


def category_ids(dataset: object, classes: int) -> list[int] | None:
    """The data set's ids of the labels 1, 2, ..., or None where it has no ``category_ids``.

    Raises:
        DatasetError: where they are no list of as many whole numbers as there are ``classes``.
    """
    ids = getattr(dataset, "category_ids", None)
    if ids is None:
        return None
    try:
        given = [operator.index(category) for category in ids]
    except TypeError:
        given = None
    if given is None or len(given) != classes:
        found = "a method" if callable(ids) else repr(ids)
        raise DatasetError(
            f"category_ids of data set {type(dataset).__qualname__} is {found}; it must be a list of "
            f"{classes} whole numbers, the ids of the classes"
        )
    return given


def dataset_class(name: str) -> type:
    """The class that ``--dataset package.module:Class`` names, checked. Modules of the current folder are found, too.

    Raises:
        ValueError: for a name of another form, a module that is not found or fails, or lacks the class.
        DatasetError: for a class that is no data set.
    """
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise ValueError(f"--dataset is {name!r}; it must be package.module:Class")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)  # stays, so that worker processes that are spawned find it
    try:
        kind = attrgetter(class_name)(importlib.import_module(module_name))
    except Exception as error:  # a module can raise anything
        raise ValueError(f"--dataset {name}: {type(error).__name__}: {error}") from error
    if not isinstance(kind, type):
        raise ValueError(f"--dataset {name} is {type(kind).__name__}; it must be a class")
    check_dataset(kind)
    return kind


def make_dataset(name: str, images: Path | None, annotations: Path | None, damaged: str | None = None) -> Dataset:
    """The data set of ``--dataset name``, called with those of (images, annotations, damaged) that it accepts.

    They are given by name where the class has parameters of these names, else by position where it needs arguments of
    other names. A class that needs none and is given none is called without arguments. ``damaged`` is None where the
    user said nothing about it: then the class's own default holds, or "refuse" where it needs the argument.

    Raises:
        ValueError: for an argument that the class needs and was not given, or that was given and it does not accept.
        DatasetError: for a class that is no data set, or has no ``class_names``.
    """
    kind = dataset_class(name)
    given: dict[str, Any] = {"images": images, "annotations": annotations, "damaged": damaged}
    try:
        parameters = inspect.signature(kind).parameters
    except ValueError:  # a class of an extension may have none
        parameters = {}
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    accepted = [key for key in given if takes_all or key in parameters]
    needed = [
        parameter
        for parameter in parameters.values()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    unnamed = not set(given) & set(parameters) and all(parameter.kind in POSITIONAL for parameter in needed)
    if needed and unnamed and len(needed) <= len(given):
        # By position: exactly those that it needs, as a further one could be anything.
        accepted = list(given)[: len(needed)]
        needs = dict(zip(accepted, (parameter.name for parameter in needed), strict=True))
    else:
        needs = {parameter.name: parameter.name for parameter in needed}
        unnamed = False
    if set(needs) - set(given):
        raise ValueError(
            f"--dataset {name} needs {', '.join(needs)}; it can be called with images, annotations, damaged only"
        )
    if "damaged" in needs and damaged is None:
        given["damaged"] = "refuse"
    for key, parameter_name in needs.items():
        if given[key] is None:
            raise ValueError(f"--dataset {name} needs {parameter_name}; give --{key}")
    for key, value in given.items():
        if key not in accepted and value is not None and (key, value) != ("damaged", "refuse"):  # which it does anyway
            raise ValueError(f"--dataset {name} does not accept {key}; leave --{key} out")
    arguments = {key: given[key] for key in accepted if given[key] is not None}
    dataset = kind(*arguments.values()) if unnamed else kind(**arguments)
    class_names(dataset)
    return dataset


def reader(dataset: Dataset) -> Callable[[int], Any]:
    """What gives sample ``index`` itself: CocoInstances' ``read``, which never gives another in place of a damaged one.

    Of any other class it is ``dataset[index]``: a method ``read`` of the user's own may be anything.
    """
    return dataset.read if isinstance(dataset, CocoInstances) else dataset.__getitem__


def describe(dataset: Dataset, index: int) -> str:
    """Names the sample in messages, by the data set's own ``describe`` where it has one."""
    return dataset.describe(index) if callable(getattr(dataset, "describe", None)) else f"sample {index}"


def read_sample(dataset: Dataset, index: int) -> Any:
    """Sample ``index`` by :func:`reader`.

    Raises:
        DamagedSampleError: from the data set, as it is.
        SampleError: from what else a class of the user's own raises, naming sample, class and error.
    """
    try:
        return reader(dataset)(index)
    except DamagedSampleError:
        raise
    except Exception as error:
        if isinstance(dataset, CocoInstances):
            raise
        kind = type(dataset)
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise SampleError(f"sample {index} of {name}: {type(error).__name__}: {error}") from error


def targets_of(dataset: Dataset, wanted: str | None = None) -> str:
    """What the data set's targets hold beside boxes: "masks", "keypoints" or (nothing) "boxes".

    It is the data set's attribute ``targets`` where it has one. Else up to 16 samples are looked at, as the first may
    have no objects: ``wanted`` where one has that, else what the first of them has that has either.

    Args:
        dataset: CocoInstances or a class of the user's own.
        wanted: "masks" or "keypoints", for samples that may have both.

    Raises:
        DamagedSampleError: where none of these samples can be read.
        SampleError: see :func:`read_sample`.
    """
    targets = getattr(dataset, "targets", None)
    if isinstance(targets, str):
        return targets
    found, error, readable = None, None, False
    for index in range(min(len(dataset), LOOKED_AT)):
        try:
            sample = read_sample(dataset, index)
        except DamagedSampleError as damage:
            error = damage
            continue
        readable = True
        target = sample[1] if isinstance(sample, (tuple, list)) and len(sample) == 2 else None
        has = [name for name in ("masks", "keypoints") if isinstance(target, dict) and name in target]
        if wanted in has:
            return wanted
        found = found or next(iter(has), None)
        if found is not None and wanted not in ("masks", "keypoints"):
            return found
    if error is not None and not readable:
        raise error
    return found or "boxes"
