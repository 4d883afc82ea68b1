"""What a file that is written whole takes the place of: regular files and nothing else, through symbolic links."""

from __future__ import annotations

import os
import socket
import stat
import sys

import pytest

from resnet_cuda._atomic_write import replacing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and permissions of POSIX")


def write(path, text="new"):
    with replacing(path) as written, open(written, "w") as file:
        file.write(text)


def permissions(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "other").write_text("")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert permissions(tmp_path / "file") == permissions(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_an_existing_file_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    write(path)
    assert path.read_text() == "new" and permissions(path) == mode


@pytest.mark.parametrize("target", ["there/file", "missing"])
def test_a_symbolic_link_stays(tmp_path, target):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "there" / "file").chmod(0o600)
    (tmp_path / "second").symlink_to(target)
    (tmp_path / "first").symlink_to("second")
    write(tmp_path / "first")
    assert os.readlink(tmp_path / "first") == "second" and os.readlink(tmp_path / "second") == target
    assert (tmp_path / target).read_text() == "new"
    assert target == "missing" or permissions(tmp_path / target) == 0o600
    assert os.listdir(tmp_path / "there") == ["file"]


def made(folder, kind):
    path = folder / "it"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as it:
            it.bind(str(path))
    return path


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "directory", "socket"])
def test_anything_else_stays_and_is_named(tmp_path, monkeypatch, kind, linked):
    monkeypatch.chdir(tmp_path)  # the name of a socket has at most 108 bytes
    path = made(tmp_path.relative_to(tmp_path), kind)
    before = os.lstat(path)
    if linked:
        (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match=f"it is a .*{kind}.*; it must be a regular file") as caught:
        write(tmp_path / "link" if linked else path)
    assert "it" in str(caught.value.filename) or linked
    after = os.lstat(path)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert sorted(os.listdir(tmp_path)) == sorted(["it", "link"] if linked else ["it"])


def test_a_circle_of_links_is_an_error(tmp_path):
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write(tmp_path / "one")


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as written:
        with open(written, "w") as file:
            file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]
