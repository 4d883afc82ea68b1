"""Files of torch and safetensors that no library writes: none takes much memory, and each gives one error.

The files are read in a process that may take 256 MB, and whose crash fails a test instead of ending them all.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import zipfile

import pytest
import torch
from helpers.weight_files import (
    SAMPLES,
    legacy_tensor,
    legacy_torch,
    pickled_tensor,
    safetensors,
    text,
    torch_zip,
)

from resnet_cuda.weights.files import FileError, read


def test_tensors_beyond_their_storage(check):
    storage = {"0": struct.pack("<4f", 1, 2, 3, 4)}
    geometries = {
        "right": ((2, 2), (2, 1), 0, "content"),
        "transposed": ((2, 2), (1, 2), 0, "content"),
        "overlapping": ((3, 2), (1, 1), 0, "content"),
        "empty": ((0, 5), (5, 1), 0, "content"),
        "empty beyond": ((0, 5), (5, 1), 100, "content"),
        "one more": ((5,), (1,), 0, "reads element 4 of a storage of 4"),
        "offset": ((4,), (1,), 1, "reads element 4"),
        "stride": ((2,), (4,), 0, "reads element 4"),
        "huge stride": ((2,), (1 << 62,), 0, "reads element"),
        "stride that wraps": ((3,), ((1 << 63) - 1,), 0, "reads element"),
        "offset that wraps": ((1,), (1,), (1 << 63) - 1, "reads element"),
        "negative stride": ((2,), (-1,), 1, "not integers from 0"),
        "negative offset": ((1,), (1,), -1, "not integers from 0"),
        "negative size": ((-1,), (1,), 0, "has the shape"),
        "huge size": ((1 << 63,), (0,), 0, "has the shape"),
        "expanded": ((1 << 20,), (0,), 0, "content"),
        "expanded hugely": ((1 << 40,), (0,), 0, "more than 4 times its size"),
        "expanded past counting": ((1 << 30, 1 << 30), (0, 0), 0, "which no memory holds"),
        "empty past counting": ((0, 1 << 62), (0, 0), 0, "which no memory holds"),
        "strides missing": ((2, 2), (2,), 0, "not integers from 0"),
        "65 dimensions": ((1,) * 65, (1,) * 65, 0, "has the shape"),
    }
    hostile = {}
    for name, (shape, strides, offset, message) in geometries.items():
        hostile[name] = (torch_zip(pickled_tensor(shape, strides, offset), storage), message)
    one = (1,), (1,)
    hostile |= {
        "storage shorter than said": (torch_zip(pickled_tensor(*one, numel=5), storage), "16 bytes for 20"),
        "storage longer than said": (torch_zip(pickled_tensor(*one, numel=3), storage), "16 bytes for 12"),
        "storage of 2**60": (torch_zip(pickled_tensor(*one, numel=1 << 60), storage), "identifier is damaged"),
        "storage of 2**62 that wraps": (
            torch_zip(pickled_tensor(*one, numel=(1 << 62) + 4), storage),
            "identifier is damaged",
        ),
        "storage of 2**40": (torch_zip(pickled_tensor(*one, numel=1 << 40), storage), "16 bytes for 4398046511104"),
        "storage of -1": (torch_zip(pickled_tensor(*one, numel=-1), storage), "identifier is damaged"),
        "no storage": (torch_zip(pickled_tensor(*one)), "no record of storage 0"),
        "quantized storage": (torch_zip(pickled_tensor(*one, kind=b"QInt8Storage"), storage), "sparse, quantized"),
        "a class that is no storage": (
            torch_zip(pickled_tensor(*one, kind=b"Tensor"), storage),
            "identifier is damaged",
        ),
        "booleans that are neither": (
            torch_zip(pickled_tensor((4,), (1,), kind=b"BoolStorage"), {"0": b"\0\1\2\xff"}),
            "content",
        ),
        "expanded many times": (
            torch_zip(
                pickled_tensor((1 << 20,), (0,))[:-1] + pickled_tensor((1 << 20,), (0,))[2:-1] * 20 + b".", storage
            ),
            "more than 4 times its size",
        ),
    }
    check(hostile)


def test_quantized_tensors_with_wrong_strides(check):
    """torch 2.12 gave a tensor that read anywhere in memory [pytorch issue 184652]."""
    pickled = pickled_tensor((2,), (1 << 40,)).replace(b"_rebuild_tensor_v2", b"_rebuild_qtensor")
    check({"quantized": (torch_zip(pickled, {"0": bytes(16)}), "sparse, quantized")})


def test_older_files_of_torch(check):
    def sized(elements: int, data: bytes = bytes(16)) -> bytes:
        return struct.pack("<Q", elements) + data

    check(
        {
            "right": (legacy_tensor(4, sized(4)), "content"),
            "view": (legacy_tensor(4, sized(4), view=b"(" + text("v") + b"K\1K\2t"), "content"),
            "view beyond": (legacy_tensor(4, sized(4), view=b"(" + text("v") + b"K\3K\2t"), "out of its bounds"),
            "view of nothing": (legacy_tensor(4, sized(4), view=b"]"), "identifier is damaged"),
            "said longer": (legacy_tensor(5, sized(4)), "shorter than its tensors"),
            "said huge": (legacy_tensor(1 << 50, sized(4)), "shorter than its tensors"),
            "stored huge": (legacy_tensor(4, sized(1 << 62)), "is not all there"),
            "stored hugely": (legacy_tensor(4, sized((1 << 64) - 1)), "is not all there"),
            "2 GB": (legacy_tensor(1 << 29, sized(1 << 29)), "is not all there"),
            "truncated": (legacy_tensor(4, sized(4)[:-1]), "is not all there"),
            "more": (legacy_tensor(4, sized(3)), "shorter than its tensors|bytes follow"),
            "no keys": (
                legacy_tensor(4, b"").replace(pickle.dumps(["0"], 2), pickle.dumps([], 2)),
                "keys of its storages",
            ),
            "keys twice": (
                legacy_tensor(4, b"").replace(pickle.dumps(["0"], 2), pickle.dumps(["0", "0"], 2)),
                "keys of",
            ),
            "keys that run": (legacy_tensor(4, b"").replace(pickle.dumps(["0"], 2), b"cos\nsystem\n."), "os.system"),
            "big-endian": (legacy_tensor(4, sized(4)).replace(b"endianq\x02\x88", b"endianq\x02\x89"), "big-endian"),
            "another version": (legacy_tensor(4, sized(4)).replace(b"M\xe9\x03", b"M\xe8\x03"), "its head is not"),
            "a module with source": (
                legacy_torch(b"(" + text("module") + b"NNNtQ."),
                "save the module's state_dict|persistent identifier",
            ),
        },
    )


def test_zip_files(check):
    pickled, storage = pickled_tensor((4,), (1,)), {"0": struct.pack("<4f", 1, 2, 3, 4)}
    right = torch_zip(pickled, storage)
    end = right.rindex(b"PK\5\6")
    directory = right.index(b"PK\1\2")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/b.txt", "text")
    bomb = torch_zip(pickled, {"0": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    hostile = {
        "right": (right, "content"),
        "with a comment": (right[:-2] + b"\4\0PK\5\6", "content"),
        "bytes behind": (right + b"x", "no zip directory at its end"),
        "no directory": (right[:directory], "no zip directory at its end"),
        "half a directory": (right[: directory + 50] + right[end:], "out of the file's bounds|invalid entry"),
        "not of torch": (buffer.getvalue(), "not one of torch.save"),
        "a compressed bomb": (bomb, "is compressed"),
        "encrypted": (right[: directory + 8] + b"\1" + right[directory + 9 :], "is encrypted"),
        "a flipped bit": (right.replace(storage["0"], storage["0"][:-1] + b"\x41"), "another checksum"),
        "big-endian": (
            torch_zip(pickled, storage).replace(b"little", b"bigbig"),
            "another checksum|big-endian",
        ),
        "a directory of 2 GB": (
            right[: end + 12] + struct.pack("<L", 2 << 30) + right[end + 16 :],
            "out of the file's",
        ),
        "a directory beyond": (right[: end + 16] + struct.pack("<L", 1 << 31) + right[end + 20 :], "out of the file's"),
        "65534 records": (right[: end + 8] + b"\xfe\xff\xfe\xff" + right[end + 12 :], "out of the file's"),
        "more records": (right[: end + 8] + b"\7\0\7\0" + right[end + 12 :], "out of the file's|invalid entry"),
        "zip64 without its end": (right[: end + 16] + b"\xff\xff\xff\xff" + right[end + 20 :], "has no end"),
        "several disks": (right[: end + 4] + b"\1\0" + right[end + 6 :], "split into several"),
    }
    records = [match.start() for match in re.finditer(b"PK\1\2", right)]
    names = [right[at + 46 : at + 46 + right[at + 28]] for at in records]
    data = records[names.index(b"archive/data/0")]
    first = records[0]

    def changed(at: int, layout: str, value: int) -> bytes:
        return right[:at] + struct.pack(layout, value) + right[at + struct.calcsize(layout) :]

    size_2gb = changed(data + 20, "<L", 2 << 30)
    hostile |= {
        "a record of 2 GB": (size_2gb[: data + 24] + struct.pack("<L", 2 << 30) + size_2gb[data + 28 :], "ends behind"),
        "a record of another size": (changed(data + 24, "<L", 1 << 30), "is compressed"),
        "a record beyond": (changed(data + 42, "<L", 1 << 30), "ends behind"),
        "overlapping records": (
            changed(data + 42, "<L", struct.unpack("<L", right[first + 42 : first + 46])[0]),
            "overlaps",
        ),
        "a record without a header": (changed(data + 42, "<L", 40), "overlaps|has no header"),
    }
    check(hostile)


def test_records_of_one_name(check):
    pickled = pickled_tensor((1,), (1,), numel=1)
    right = torch_zip(pickled, {"0": bytes(4), "1": bytes(4)})
    check({"twice": (right.replace(b"archive/data/1", b"archive/data/0"), "two records archive/data/0")})


def test_safetensors(check):
    def one(**changes) -> bytes:
        fields = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes
        return safetensors({"w": fields}, bytes(4))

    def two(first: list[int], second: list[int], length: int = 8) -> bytes:
        ranges = {"a": first, "b": second}
        shapes = {name: [(end - start) // 4] for name, (start, end) in ranges.items()}
        return safetensors(
            {n: {"dtype": "F32", "shape": shapes[n], "data_offsets": r} for n, r in ranges.items()}, bytes(length)
        )

    right = one()
    check(
        {
            "right": (right, "content"),
            "two": (two([4, 8], [0, 4]), "content"),
            "header of 2 GB": (struct.pack("<Q", 2 << 30) + right[8:], "promises 2147483648 bytes"),
            "header of 2**39": (struct.pack("<Q", 1 << 39) + right[8:], "promises 549755813888 bytes"),
            "header of 2**63": (struct.pack("<Q", 1 << 63) + right[8:], "none of torch, pickle and safetensors"),
            "header of 17 MB": (safetensors(b"{" + b" " * (17 << 20) + b"}"), "16777216 is the limit"),
            "not JSON": (safetensors(b"{abc}"), "not JSON"),
            "not UTF-8": (safetensors(b'{"\xff":1}'), "not JSON"),
            "nested": (safetensors(b'{"a":' * 100000), "not JSON"),
            "many digits": (safetensors(b'{"a":' + b"9" * 10000 + b"}"), "not JSON"),
            "twice": (safetensors(b'{"w":1,"w":1}'), "names a tensor twice"),
            "twice within": (safetensors(b'{"w":{"dtype":"F32","dtype":"F32"}}'), "names a tensor twice"),
            "no fields": (safetensors({"w": {}}), "not described by"),
            "a number": (safetensors({"w": 5}), "not described by"),
            "another field": (one(more=1), "not described by"),
            "unknown dtype": (one(dtype="F4"), "has the dtype 'F4'"),
            "dtype of no text": (one(dtype=[]), "has the dtype"),
            "larger shape": (one(shape=[2]), "4 bytes for 8"),
            "negative shape": (one(shape=[-1]), "has the shape"),
            "fractional shape": (one(shape=[1.0]), "has the shape"),
            "true shape": (one(shape=[True]), "has the shape"),
            "no shape": (one(shape="1"), "no shape or no range"),
            "huge shape": (one(shape=[1 << 62, 4]), "which no memory holds"),
            "empty huge shape": (one(shape=[0, 1 << 62], data_offsets=[0, 0]), "which no memory holds"),
            "65 dimensions": (one(shape=[1] * 65), "has the shape"),
            "range beyond": (one(shape=[1 << 29], data_offsets=[0, 1 << 31]), "promises 2147483648 bytes"),
            "range backwards": (one(data_offsets=[4, 0]), "-4 bytes for 4"),
            "negative range": (one(data_offsets=[-4, 0]), "no range"),
            "three offsets": (one(data_offsets=[0, 4, 8]), "no range"),
            "overlap": (two([0, 8], [4, 8]), "begins at byte 4 of the values; 8 is next"),
            "the same range": (two([0, 4], [0, 4], 4), "begins at byte 0 of the values; 4 is next"),
            "gap": (two([0, 4], [8, 12], 12), "begins at byte 8 of the values; 4 is next"),
            "truncated": (right[:-1], "promises 4 bytes of values, and it has 3"),
            "booleans that are neither": (one(dtype="BOOL", shape=[4]), "content"),
        },
    )


@pytest.mark.parametrize("kind", SAMPLES)
def test_truncated_at_every_byte(tmp_path, kind):
    data, path = SAMPLES[kind], tmp_path / "file"
    path.write_bytes(data)
    read(path)
    for length in reversed(range(len(data))):
        os.truncate(path, length)
        with pytest.raises(FileError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_torch_reads_what_these_tests_write(tmp_path):
    """So that what the reader refuses above differs from a right file in one thing only."""
    values = struct.pack("<4f", 1, 2, 3, 4)
    zipped = torch_zip(pickled_tensor((2, 2), (2, 1)), {"0": values})
    for data in (zipped, legacy_tensor(4, struct.pack("<Q", 4) + values)):
        got = torch.load(io.BytesIO(data), weights_only=True)["w"]
        (tmp_path / "file").write_bytes(data)
        assert torch.equal(got, read(tmp_path / "file")["w"])
