"""The directive ``program-help``: what ``python -m resnet_cuda COMMAND --help`` prints."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import Directive

from resnet_cuda.__main__ import main


def help_of(command: str) -> str:
    """The help of a command, or with "" the program's."""
    text = io.StringIO()
    environment = mock.patch.dict(os.environ, {"COLUMNS": "86", "NO_COLOR": "1", "PYTHON_COLORS": "0"})
    name = mock.patch("sys.argv", ["__main__.py"])
    with environment, name, contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    return text.getvalue()


class ProgramHelp(Directive):
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = help_of(self.arguments[0] if self.arguments else "")
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("program-help", ProgramHelp)
    return {"parallel_read_safe": True}
