"""``python -m resnet_cuda info | bench | convert | export``, installed as ``resnet-cuda`` as well."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from resnet_cuda._console import delivered, escape_what_cannot_be_printed, show
from resnet_cuda._interrupts import end_by, interruptible
from resnet_cuda._version import __version__
from resnet_cuda.export.command import add_export, run_export
from resnet_cuda.info import info
from resnet_cuda.weights.conventions import PIXELS
from resnet_cuda.weights.convert import ALIASES, LAYOUTS, TARGETS, convert_file


def run() -> int | str | None:
    """The program as a process of its own: :func:`main`, and then the end of the process. Returns the exit status."""
    try:
        status: int | str | None = main()
    except SystemExit as end:  # of argparse, after --help
        status = end.code
    except KeyboardInterrupt as interrupt:
        return end_by(interrupt)
    return delivered(status)


def main(arguments: list[str] | None = None) -> int:
    """The program as a function, for other programs: how the process ends stays their matter.

    Returns:
        The exit status: 1 for what cannot be converted, exported or printed, 2 for wrong arguments.

    Raises:
        KeyboardInterrupt: for Ctrl-C, and while a file is converted or exported for SIGTERM and SIGHUP.
    """
    escape_what_cannot_be_printed()
    program = "resnet-cuda" if sys.argv[0].endswith("resnet-cuda") else "python -m resnet_cuda"
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--version", action="version", version=f"resnet_cuda {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="{info,bench,convert,export}")
    facts = commands.add_parser("info", help="what was built and what this machine can use")
    facts.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    commands.add_parser("bench", help="the benchmarks of a checkout; its options follow", add_help=False)
    _add_convert(commands)
    add_export(commands)
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command != "bench":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if chosen.command is None:
        parser.print_help(sys.stderr)
        return 2
    if chosen.command == "info":
        return show(info(chosen.json))
    if chosen.command == "convert":
        with interruptible(chosen.path):
            return _convert(chosen)
    if chosen.command == "export":
        with interruptible(chosen.out):
            return run_export(chosen)
    if not _is_checkout():
        print("resnet_cuda: benchmarks/ is part of a checkout, not of the package: run this in one", file=sys.stderr)
        return 2
    from benchmarks.__main__ import main as benchmarks_main

    return benchmarks_main(rest)


def _is_checkout() -> bool:
    """Whether ``import benchmarks`` imports the folder beside this package, and not another package of that name."""
    found = importlib.util.find_spec("benchmarks")
    if found is None or found.origin is None:
        return False
    return Path(found.origin).resolve().parent == Path(__file__).resolve().parents[1] / "benchmarks"


def _add_convert(commands: argparse._SubParsersAction) -> None:
    it = commands.add_parser(
        "convert",
        help="weights in another library's names",
        description="Writes IN, whatever library it is from, with another library's names. The format of OUT is a "
        "pickle for .pkl and caffe2, safetensors for .safetensors, else torch's.",
    )
    it.add_argument("source", metavar="IN", help="a file, a URL, hf://owner/name/file, or a torchvision weights name")
    it.add_argument("path", metavar="OUT")
    it.add_argument(
        "--to",
        required=True,
        choices=TARGETS,
        type=lambda name: ALIASES.get(name, name),
        metavar="FORMAT",
        help=", ".join(TARGETS),
    )
    it.add_argument("--layout", choices=LAYOUTS, help="what the keys are to fit; as in IN without it")
    it.add_argument("--eps", type=float, help="epsilon of IN's batch norms, where it is not what its library uses")
    it.add_argument("--pixels", choices=PIXELS, help="convert the stem to this library's colour order and pixel scale")


def _convert(chosen: argparse.Namespace) -> int:
    try:
        conversion = convert_file(
            chosen.source, chosen.path, chosen.to, layout=chosen.layout, eps=chosen.eps, pixels=chosen.pixels
        )
    except (ValueError, OSError) as error:
        print(f"resnet_cuda: {error}", file=sys.stderr)
        return 1
    return show(conversion, f"{chosen.path} is written; ")


if __name__ == "__main__":
    raise SystemExit(run())
