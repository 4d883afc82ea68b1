"""One file's error, or Ctrl-C, loses nothing of the others."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
from detection.prediction import predict
from detection.prediction.predict import predict_files
from detection.prediction.result_files import ResultFile, result_files
from test_predict import CPU, Threshold, entry, options, rectangle, results_in, write_json

BYTES = b"caf\xe9 \xff.png"  # no UTF-8


class FailingAt(Threshold):
    """Raises at the image of this number, from 1 on."""

    def __init__(self, number, error):
        super().__init__()
        self.number, self.error, self.calls = number, error, 0

    def detect(self, image):
        self.calls += 1
        if self.calls == self.number:
            raise self.error
        return super().detect(image)


def files_in(folder, count=5):
    return [rectangle(folder / f"{number}.png") for number in range(1, count + 1)]


def test_ctrl_c_writes_what_was_done(tiny_model, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "results.json").write_text("earlier")
    with pytest.raises(KeyboardInterrupt):
        predict_files(
            FailingAt(4, KeyboardInterrupt()), options(tiny_model), files_in(tmp_path / "in"), output, 0.3, CPU
        )
    assert [it["image_id"] for it in results_in(output)] == [1, 2, 3]
    assert [it["id"] for it in json.loads((output / "images.json").read_text())["images"]] == [1, 2, 3]
    assert sorted(it.name for it in output.iterdir()) == ["1.png", "2.png", "3.png", "images.json", "results.json"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("cuDNN error:\nsomething"), "2.png: RuntimeError: cuDNN error: something"),
        (KeyError("boxes"), "2.png: KeyError: 'boxes'"),
        (MemoryError(), "2.png does not fit into memory: MemoryError"),
        (AssertionError(), "2.png: AssertionError"),
    ],
)
def test_any_error_of_one_file_is_reported_and_the_rest_goes_on(tiny_model, tmp_path, capsys, error, message):
    files = files_in(tmp_path / "in", 3)
    assert predict_files(FailingAt(2, error), options(tiny_model), files, tmp_path / "out", 0.3, CPU) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("not used: ") and line.endswith(message)
    assert [it["image_id"] for it in results_in(tmp_path / "out")] == [1, 3]


def test_a_folder_in_a_pictures_place(tiny_model, tmp_path, capsys):
    """The detections are there, the picture is not, and the file counts as failed."""
    output = tmp_path / "out"
    (output / "2.png").mkdir(parents=True)
    assert predict_files(Threshold(), options(tiny_model), files_in(tmp_path / "in", 3), output, 0.3, CPU) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("in the results, but not drawn or printed: ") and "IsADirectory" in captured.err
    assert str(tmp_path / "in" / "2.png") in captured.err
    assert [it["image_id"] for it in results_in(output)] == [1, 2, 3]
    assert (output / "3.png").is_file()


@pytest.mark.parametrize("name", ["results.json", "images.json"])
def test_a_folder_in_the_results_place_is_an_error_before_anything_runs(tiny_model, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    model = FailingAt(1, AssertionError("it ran"))
    with pytest.raises(IsADirectoryError, match=f"{name} is a folder"):
        predict_files(model, options(tiny_model), files_in(tmp_path / "in", 1), tmp_path / "out", 0.3, CPU)
    assert model.calls == 0


def test_an_error_while_drawing(tiny_model, tmp_path, capsys, monkeypatch):
    def failing(*_arguments):
        raise TypeError("a colour is missing")

    monkeypatch.setattr(predict, "draw_detections", failing)
    assert predict_files(Threshold(), options(tiny_model), files_in(tmp_path / "in", 2), tmp_path / "o", 0.3, CPU) == 2
    assert capsys.readouterr().err.count("TypeError: a colour is missing") == 2
    assert len(results_in(tmp_path / "o")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are texts")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_file_name_that_is_no_utf8(tiny_model, tmp_path, monkeypatch, encoding):
    good = rectangle(tmp_path / "in" / "good.png")
    odd, damaged = (good.parent / os.fsdecode(name) for name in (BYTES, b"damaged\xff.png"))
    odd.write_bytes(good.read_bytes())
    damaged.write_bytes(b"nothing")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    failed = predict_files(Threshold(), options(tiny_model), [odd, damaged, good], tmp_path / "out", 0.3, CPU)
    monkeypatch.undo()
    lines = out.buffer.getvalue().decode(encoding).splitlines()
    assert len(lines) == 2 and lines[0].endswith("caf\\udce9 \\udcff.png: 1 object")
    assert failed == 1 and b"damaged\\udcff.png" in err.buffer.getvalue()
    assert [it["file_name"] for it in results_in(tmp_path / "out")] == [odd.as_posix(), good.as_posix()]
    assert (tmp_path / "out" / odd.name).is_file()


def test_an_interrupted_entry_leaves_the_list_whole():
    """Ctrl-C may come right after the bytes of an image were written."""

    class Interrupting(io.BytesIO):
        def write(self, data):
            super().write(data)
            if b"third" in data:
                raise KeyboardInterrupt

    file = Interrupting()
    results = ResultFile(file)
    results.add({"id": 1}, [{"a": 1}, {"a": 2}])
    results.add({"id": 2}, [])
    with pytest.raises(KeyboardInterrupt):
        results.add({"id": 3}, [{"a": "third"}])
    results.finish()
    assert json.loads(file.getvalue()) == [{"a": 1}, {"a": 2}]
    assert results.images == [{"id": 1}, {"id": 2}]


def test_nothing_done_is_an_empty_list_only_without_an_error(tmp_path):
    with pytest.raises(RuntimeError), result_files(tmp_path, []):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with result_files(tmp_path, []):
        pass
    assert results_in(tmp_path) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_annotations_in_the_encodings_that_a_data_set_may_have(tiny_model, tmp_path, encoding):
    file = rectangle(tmp_path / "ü.png")
    listed = write_json(tmp_path / "list.json", [entry(5, "ü.png")])
    listed.write_bytes(json.dumps(json.loads(listed.read_text()), ensure_ascii=False).encode(encoding))
    arguments = (Threshold(), options(tiny_model), [file], tmp_path / "out", 0.3, CPU)
    assert predict_files(*arguments, annotations=listed, draw=False) == 0
    assert [it["image_id"] for it in results_in(tmp_path / "out")] == [5]
