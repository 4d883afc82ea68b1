"""Files, folders and patterns; names that no two inputs share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from detection.prediction.inputs import image_files, output_names


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/er/c.tiff", "deep/a.png", ".hidden.png", ".cache/d.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def relative(files):
    return [Path(os.path.relpath(file, "in")).as_posix() for file in files]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["in"], ["a.PNG", "b.jpg", "deep/a.png", "deep/er/c.tiff"]),
        (["in/deep"], ["deep/a.png", "deep/er/c.tiff"]),
        (["in/*.jpg"], ["b.jpg"]),
        (["in/**/*.tiff"], ["deep/er/c.tiff"]),
        (["in/**/?.*"], ["a.PNG", "b.jpg", "deep/a.png", "deep/er/c.tiff"]),
        (["in/[ab].*"], ["a.PNG", "b.jpg"]),
        (["in/*"], ["a.PNG", "b.jpg", "deep/a.png", "deep/er/c.tiff"]),
        (["in/b.jpg", "in", "in/../in/a.PNG"], ["b.jpg", "a.PNG", "deep/a.png", "deep/er/c.tiff"]),
        (["in/notes.txt"], ["notes.txt"]),  # named by the user, who will be told what is wrong with it
        (["in/.hidden.png"], [".hidden.png"]),
        (["in/.cache"], [".cache/d.png"]),
        ([Path("in/b.jpg"), "in/b.jpg"], ["b.jpg"]),
    ],
)
def test_what_is_found(tree, patterns, expected):
    files = image_files(patterns)
    assert relative(files) == expected
    assert all(isinstance(file, Path) and file.is_file() for file in files)


def test_a_name_with_the_signs_of_a_pattern(tree):
    Path("in/photo[1].png").touch()
    assert relative(image_files(["in/photo[1].png"])) == ["photo[1].png"]


def test_folders_that_are_links_to_each_other(tree):
    Path("in/deep/loop").symlink_to(tree / "in", target_is_directory=True)
    assert relative(image_files(["in"])) == ["a.PNG", "b.jpg", "deep/a.png", "deep/er/c.tiff"]


def test_earlier_pictures_are_no_inputs(tree):
    Path("in/out").mkdir()
    Path("in/out/b.png").touch()
    assert "out/b.png" in relative(image_files(["in"]))
    assert "out/b.png" not in relative(image_files(["in", "in/**/*.png"], exclude=Path("in/out")))
    assert relative(image_files(["in/out/b.png"], exclude=Path("in/out"))) == ["out/b.png"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["in", "in/*.gif"], r"in/\*.gif: no image matches this pattern"),
        (["nothing.png"], "nothing.png: there is no such file or folder"),
        (["empty"], "empty: no image is in this folder; known suffixes are .avif, "),
        (["in/*.txt"], r"in/\*.txt: no image matches"),
        ([], "no image files are given"),
    ],
)
def test_what_matches_nothing_is_named(tree, patterns, message):
    Path("empty").mkdir()
    with pytest.raises(ValueError, match=message):
        image_files(patterns)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/x.jpg"], ["x"]),
        (["a/x.jpg", "a/y.jpg"], ["x", "y"]),
        (["a/x.jpg", "b/x.jpg"], ["a/x", "b/x"]),
        (["a/x.jpg", "x.jpg"], ["a/x", "x"]),
        (["x.jpg", "x.png"], ["x.jpg", "x.png"]),
        (["x.jpg", "X.png"], ["x.jpg", "X.png"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
        (["x.jpg", "x.png", "x.jpg.gif"], ["x.jpg-2", "x.png", "x.jpg"]),
        ([".png"], [".png"]),
        ([], []),
    ],
)
def test_names(files, expected):
    paths = [Path(file) for file in files]
    assert output_names(paths) == dict(zip(paths, expected, strict=True))


def test_names_with_several_endings():
    names = output_names([Path("x.jpg"), Path("x-sampling.jpg")], endings=(".png", "-sampling.png"))
    assert list(names.values()) == ["x.jpg", "x-sampling.jpg"]


def test_no_input_is_overwritten(tree):
    files = image_files(["in/*.*"])
    Path("in/b.png").touch()
    files = image_files(["in/a.PNG", "in/b.jpg", "in/b.png"])
    names = output_names(files, Path("in"))
    written = {f"{name}.png" for name in names.values()}
    assert len(written) == 3
    assert not {name.casefold() for name in written} & {"a.png", "b.jpg", "b.png"}
    # Elsewhere the short names do.
    assert list(output_names(files[:2], Path("out")).values()) == ["a", "b"]


def test_many_names_stay_apart(tmp_path):
    parts = ["x", "X", "x.jpg", "x.png", "x.jpg-2", "x-sampling", "y"]
    files = [tmp_path / folder / f"{part}{end}" for folder in ("", "a") for part in parts for end in (".jpg", ".png")]
    names = output_names(files, tmp_path, (".png", "-sampling.png"))
    written = [(name + end).casefold() for name in names.values() for end in (".png", "-sampling.png")]
    assert len(set(written)) == len(written) == 2 * len(files)
    assert not set(written) & {file.relative_to(tmp_path).as_posix().casefold() for file in files}
