"""A backbone's levels as timm describes them [timm.models.FeatureInfo]."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, overload


class FeatureInfo:
    """One dictionary per level with the keys ``num_chs``, ``reduction``, ``module``, ``index``, ``name``.

    ``reduction`` is the stride, ``module`` the name of the submodule that computes the level, ``name`` the level's name
    in ``output_shape()``. Without ``idx`` the methods return the entries of ``out_indices``, in order; with an index or
    a list of indices they return those entries. A backbone's own FeatureInfo has exactly the levels that its forward
    returns, all of them in ``out_indices``.

    Args:
        feature_info: the dictionaries, finest level first.
        out_indices: indices of the selected levels; an int n selects the last n.
    """

    def __init__(self, feature_info: Sequence[dict[str, Any]], out_indices: int | Iterable[int]):
        self.info = list(feature_info)
        self.out_indices = tuple(range(-out_indices, 0) if isinstance(out_indices, int) else out_indices)
        for index, entry in enumerate(self.info):
            entry.setdefault("index", index)

    def from_other(self, out_indices: int | Iterable[int]) -> FeatureInfo:
        """A copy with other ``out_indices``."""
        return FeatureInfo(copy.deepcopy(self.info), out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """The values of ``key``: a list, or for an int one value."""
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[index][key] for index in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None) -> Any:
        """The dictionaries themselves, or with ``keys`` new ones that have only these: a list, or for an int one."""
        if isinstance(idx, int):
            entry = self.info[idx]
            return entry if keys is None else {key: entry[key] for key in keys}
        return [self.get_dicts(keys, index) for index in (self.out_indices if idx is None else idx)]

    @overload
    def channels(self, idx: int) -> int: ...
    @overload
    def channels(self, idx: Sequence[int] | None = None) -> list[int]: ...
    def channels(self, idx=None):
        """Channels of the levels."""
        return self.get("num_chs", idx)

    @overload
    def reduction(self, idx: int) -> int: ...
    @overload
    def reduction(self, idx: Sequence[int] | None = None) -> list[int]: ...
    def reduction(self, idx=None):
        """Strides of the levels."""
        return self.get("reduction", idx)

    @overload
    def module_name(self, idx: int) -> str: ...
    @overload
    def module_name(self, idx: Sequence[int] | None = None) -> list[str]: ...
    def module_name(self, idx=None):
        """Names of the submodules that compute the levels."""
        return self.get("module", idx)

    def __getitem__(self, index: Any) -> Any:
        return self.info[index]

    def __len__(self) -> int:
        return len(self.info)

    def __repr__(self) -> str:
        return f"FeatureInfo({self.info!r}, out_indices={self.out_indices})"
