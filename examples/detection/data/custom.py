"""Names what a custom data set lacks before training starts, instead of failing in a worker process."""

from __future__ import annotations

import importlib

from torch.utils.data import Dataset

METHODS = ("__init__", "__getitem__", "__len__")


def check_dataset(dataset: object) -> None:
    """Checks that a data set, or its class, defines ``__init__``, ``__getitem__`` and ``__len__``.

    Raises:
        TypeError: naming the class and the methods that it lacks. Those that ``torch.utils.data.Dataset`` has itself (a
            ``__getitem__`` that only raises, ``object``'s ``__init__``) do not count.
    """
    kind = dataset if isinstance(dataset, type) else type(dataset)
    own = [base for base in kind.__mro__ if base not in (object, Dataset) and base.__module__ != "typing"]
    missing = [method for method in METHODS if not any(method in vars(base) for base in own)]
    if missing:
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"data set {name} lacks {', '.join(missing)}; it must define {', '.join(METHODS)}")


def dataset_class(name: str) -> type:
    """The class that ``--dataset package.module:Class`` names, checked."""
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise ValueError(f"--dataset is {name!r}; it must be package.module:Class")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--dataset {name}: {error}") from error
    check_dataset(kind)
    return kind
