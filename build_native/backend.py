"""The build backend: setuptools', which asks for torch, ninja and pybind11 only where something is to be compiled."""

from __future__ import annotations

from collections.abc import Mapping

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - every hook that is not below

from build_native.plan import OLDEST_TORCH, choice, compiles


def _requirements() -> list[str]:
    # With the stable ABI the torch of an isolated build need not be the torch that the package runs with.
    return [f"torch>={OLDEST_TORCH}", "ninja", "pybind11>=2.13"] if compiles(choice()) else []


def get_requires_for_build_wheel(config_settings: Mapping | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_requirements()]


def get_requires_for_build_editable(config_settings: Mapping | None = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *_requirements()]
