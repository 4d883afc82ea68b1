"""Writes a file whole or not at all: under another name first, which then takes the place of the old file."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def replaceable(path: str | os.PathLike[str]) -> tuple[Path, int | None]:
    """The regular file that ``path`` names, through symbolic links, and its permissions, None where it is a new one.

    A rename onto any other kind would not write into it, as opening it would, but remove it: a device, say, or a pipe
    that somebody reads.

    Raises:
        OSError: with the problem as its ``strerror``, for what is no regular file and what cannot be looked up.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path)), None
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "of another kind")
        raise OSError(
            errno.EINVAL, f"it is {kind}; it must be a regular file, which is replaced, or not exist", os.fspath(path)
        )
    return Path(os.path.realpath(path)), stat.S_IMODE(mode)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """The name of a file to write, of the same last part, that takes the place of ``path`` where the block ends.

    Where the block fails, it is gone and ``path`` is as before. It is in a folder beside ``path`` that only this user
    can read. A symbolic link stays, and so do the permissions of an existing file.

    Raises:
        OSError: before the block as :func:`replaceable`, or if the folder cannot be written to.
    """
    target, mode = replaceable(path)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as folder:
        written = os.path.join(folder, target.name)
        yield written
        if mode is not None:
            os.chmod(written, mode)
        os.replace(written, target)
