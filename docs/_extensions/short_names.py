"""Links for names that a docstring gives without their module, such as ``:func:`observe_sampling```.

A function that is documented as ``resnet_cuda.sampling_points`` is written in another module, whose names it uses.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.util.nodes import make_refnode


def only_match(name: str, known: dict[str, Any]) -> str | None:
    """The one documented name that ends with ``name``; None where there are none or several."""
    found = [it for it in known if it == name or it.endswith(f".{name}")]
    return found[0] if len(found) == 1 else None


def _resolve(app: Any, env: Any, node: nodes.Element, content: nodes.Element) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    objects = env.domains["py"].objects
    name = only_match(node["reftarget"].lstrip("."), objects)
    if name is None:
        return None
    entry = objects[name]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


def setup(app: Any) -> dict[str, bool]:
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True}
