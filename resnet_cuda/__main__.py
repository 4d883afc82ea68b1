"""``python -m resnet_cuda info | bench``, installed as ``resnet-cuda`` as well."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from resnet_cuda._version import __version__
from resnet_cuda.info import print_info


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit status, 2 for wrong arguments."""
    program = "resnet-cuda" if sys.argv[0].endswith("resnet-cuda") else "python -m resnet_cuda"
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--version", action="version", version=f"resnet_cuda {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,bench}")
    info = commands.add_parser("info", help="what was built and what this machine can use")
    info.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    commands.add_parser("bench", help="the benchmarks of a checkout; its options follow", add_help=False)
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.command == "info":
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        print_info(chosen.json)
        return 0
    if importlib.util.find_spec("benchmarks") is None:
        print("resnet_cuda: benchmarks/ is part of a checkout, not of the package: run this in one", file=sys.stderr)
        return 2
    from benchmarks.__main__ import main as benchmarks_main

    return benchmarks_main(rest)


if __name__ == "__main__":
    raise SystemExit(main())
