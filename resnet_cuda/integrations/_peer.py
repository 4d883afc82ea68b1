"""The error of an integration whose library is not installed."""

from __future__ import annotations

from typing import NoReturn


def missing(integration: str, install: str, error: ImportError) -> ImportError:
    """The exception to raise instead of ``error``: says what ``resnet_cuda.integrations.<integration>`` needs."""
    return ImportError(f"resnet_cuda.integrations.{integration} needs {install} ({error})", name=error.name)


def refuse(key: str, value: object, allowed: str) -> NoReturn:
    """Raises the error for an unsupported option: names the key, its value and what is allowed."""
    raise ValueError(f"{key} is {value!r}; it must be {allowed}")
