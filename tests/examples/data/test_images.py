"""Image files: the right pixels, the right way up, or an error that names the file."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from detection.data.images import image_size, read_header, read_image
from PIL import Image, ImageOps

COLOURS = np.arange(4 * 8 * 3, dtype=np.uint8).reshape(4, 8, 3) * 2
GREY16 = np.arange(0, 65536, 2048, dtype=np.uint16).reshape(4, 8)


def same(path, expected):
    expected = torch.from_numpy(np.asarray(expected, dtype=np.float32))
    expected = expected.expand(3, -1, -1) if expected.dim() == 2 else expected.permute(2, 0, 1)
    image = read_image(path)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.tga", "a.webp"])
def test_colours_of_8_bits(name, tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    same(tmp_path / name, COLOURS / 255)


@pytest.mark.parametrize("name", ["16.png", "16.tif", "16.pgm"])
def test_a_16_bit_image_keeps_its_values(name, tmp_path):
    Image.fromarray(GREY16).save(tmp_path / name)
    same(tmp_path / name, GREY16 / 65535)


def test_16_bits_of_the_other_byte_order(tmp_path):
    Image.frombytes("I;16B", (8, 4), GREY16.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    same(tmp_path / "a.tif", GREY16 / 65535)


def test_16_bits_with_0_as_white(tmp_path):
    Image.fromarray(GREY16).save(tmp_path / "a.tif", tiffinfo={262: 0})
    same(tmp_path / "a.tif", 1 - GREY16 / 65535)


def test_a_pgm_file_of_12_bits_says_its_range(tmp_path):
    values = np.arange(0, 4096, 128, dtype=np.uint16).reshape(4, 8)
    (tmp_path / "a.pgm").write_bytes(b"P5 8 4 4095\n" + values.astype(">u2").tobytes())
    image = read_image(tmp_path / "a.pgm")
    torch.testing.assert_close(image[0], torch.from_numpy(values / np.float32(4095)), rtol=0, atol=1e-5)


def test_a_tiff_file_of_12_bits(tmp_path):
    values = np.arange(0, 4096, 128, dtype=np.uint16).reshape(4, 8)
    pairs = values.reshape(-1, 2).astype(np.int64)
    words = (pairs[:, 0] << 12) | pairs[:, 1]
    data = b"".join(int(word).to_bytes(3, "big") for word in words)
    tags = [(256, 3, 8), (257, 3, 4), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1), (278, 3, 4)]
    tags.append((279, 4, len(data)))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(header.ljust(200, b"\0") + data)
    same(tmp_path / "a.tif", values / 4095)


def test_16_bit_colours_are_read_by_their_upper_bits(tmp_path):
    values = np.arange(4 * 8 * 3, dtype=np.uint16).reshape(4, 8, 3) * 600
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 4, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    same(tmp_path / "a.png", (values >> 8) / 255)


def test_other_kinds_of_pixels(tmp_path):
    grey = COLOURS[..., 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.fromarray(grey > 60).save(tmp_path / "bits.png")
        same(tmp_path / "bits.png", grey > 60)
        Image.fromarray(np.stack([grey, grey // 2], axis=2)).save(tmp_path / "la.png")  # alpha is ignored
        same(tmp_path / "la.png", grey / 255)
        indices = Image.frombytes("P", (8, 4), bytes(range(32)))
        indices.putpalette(bytes(COLOURS.reshape(-1)))
        indices.save(tmp_path / "palette.png", transparency=bytes(range(32)))
        same(tmp_path / "palette.png", COLOURS / 255)
        inks = np.concatenate([255 - COLOURS, np.zeros((4, 8, 1), dtype=np.uint8)], axis=2)
        Image.frombytes("CMYK", (8, 4), inks.tobytes()).save(tmp_path / "cmyk.tif")
        same(tmp_path / "cmyk.tif", COLOURS / 255)


def test_the_first_of_several_images_is_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 8), value, dtype=np.uint8)) for value in (10, 200)]
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert abs(float(read_image(tmp_path / name).mean()) * 255 - 10) < 2


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode, tmp_path):
    kind = np.int32 if mode == "I" else np.float32
    Image.fromarray(np.ones((4, 8), dtype=kind)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif has pixels of .*no fixed range; save it with 8-bit or 16-bit"):
        read_image(tmp_path / "a.tif")


# EXIF's orientation as numpy turns the stored pixels: https://exiftool.org/TagNames/EXIF.html
UPRIGHT = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation(name, orientation, tmp_path):
    path = tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif, **({"lossless": True} if name == "a.webp" else {}))
    upright = np.ascontiguousarray(UPRIGHT[orientation](COLOURS))
    if name != "a.tif":  # Pillow turns TIFF files when it loads them
        with Image.open(path) as file:
            assert np.array_equal(np.asarray(ImageOps.exif_transpose(file)), upright)
    assert image_size(path) == ((4, 8), upright.shape[:2])
    same(path, upright / 255)
    # By a JSON that was made with the orientation applied, and by one that was made without.
    assert torch.equal(read_image(path, upright.shape[:2]), read_image(path))
    stored = read_image(path, (4, 8))
    if orientation >= 5:
        assert torch.equal(stored, torch.from_numpy(COLOURS / np.float32(255)).permute(2, 0, 1))
    else:  # the sizes agree: applied, as viewers do
        assert torch.equal(stored, read_image(path))
    with pytest.raises(ValueError, match=r"a\.\w+ is 8 x 4.* pixels, its annotations are for 9 x 4"):
        read_image(path, (4, 9))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(("grey", "largest"), [(GREY16, 65535), (COLOURS[..., 0], 255)])
def test_orientation_of_grey_images(name, grey, largest, compression, tmp_path):
    """Pillow mixes up the sides of a grey TIFF file without compression."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(tmp_path / name, exif=exif, **({"compression": compression} if name == "a.tif" else {}))
    same(tmp_path / name, np.ascontiguousarray(np.rot90(grey, -1)) / largest)
    stored = read_image(tmp_path / name, (4, 8))
    torch.testing.assert_close(stored[0], torch.from_numpy(grey / np.float32(largest)))


def test_a_square_image_is_turned_and_damaged_exif_is_ignored(tmp_path):
    square = np.ascontiguousarray(COLOURS[:, :4])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(square).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png", (4, 4)), read_image(tmp_path / "a.png"))
    same(tmp_path / "a.png", np.ascontiguousarray(np.rot90(square, -1)) / 255)
    for data in (b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0rubbish"):
        Image.fromarray(COLOURS).save(tmp_path / "b.jpg", exif=data)
        assert image_size(tmp_path / "b.jpg") == ((4, 8), (4, 8))
        assert read_image(tmp_path / "b.jpg").shape == (3, 4, 8)


def test_a_header_costs_no_decoding(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in ("a.png", "a.jpg", "a.tif", "a.webp"):
        Image.fromarray(COLOURS).save(tmp_path / name, exif=exif)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for name in ("a.png", "a.jpg", "a.tif", "a.webp"):
        header = read_header(tmp_path / name)
        assert (header.stored, header.upright, header.orientation) == ((4, 8), (8, 4), 8)


def test_formats_that_start_programs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("started a program"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 4\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(eps)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: it is damaged or none of PNG"):
        read_image(tmp_path / "a.png")


def test_what_is_no_image_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.png: there is no such image file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="there is no such image file"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"empty\.jpg cannot be read as an image"):
        image_size(tmp_path / "empty.jpg")


def test_the_limit_for_bombs_is_kept(tmp_path, monkeypatch):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10)
    for function in (read_image, image_size):
        with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: .*exceeds limit of 20 pixels.*tiles"):
            function(tmp_path / "a.png")


@pytest.mark.parametrize(
    "error", [MemoryError(), struct.error("unpack"), zlib.error("x"), RecursionError(), EOFError()]
)
def test_whatever_pillow_raises_becomes_one_kind_of_error(error, tmp_path, monkeypatch):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")

    def fail(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: .*; save it anew"):
        read_image(tmp_path / "a.png")
