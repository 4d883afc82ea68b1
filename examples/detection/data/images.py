"""Image files as tensors: orientation, bit depth, and one kind of error for whatever is wrong with a file."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

# Formats of raster images. Others that Pillow knows start programs (EPS: Ghostscript) or are no photographs.
FORMATS = ("PNG", "JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "DIB", "PPM", "TGA")
ORIENTATION, IMAGE_WIDTH, IMAGE_LENGTH, BITS_PER_SAMPLE, PHOTOMETRIC = 274, 256, 257, 258, 262
Size = tuple[int, int]  # height, width
Stated = tuple["int | None", "int | None"]  # height, width by a JSON, which may lack either
# What is done about EXIF's orientation: "auto" goes by the size that the JSON states.
ORIENTATIONS = ("auto", "apply", "ignore")


class Header(NamedTuple):
    """What is known of an image file without its pixels."""

    stored: Size  # as the pixels lie in the file
    upright: Size  # as a viewer shows them
    orientation: int  # EXIF's 1 to 8; 1 where there is none
    format: str  # Pillow's name of the format
    mode: str  # Pillow's name of the type of pixels
    bits: int  # that a grey pixel of more than 8 bits holds, else 8
    inverted: bool  # whether 0 is white in pixels of more than 8 bits, which Pillow leaves as they are

    def check_pixels(self, path: Path) -> None:
        """Raises ValueError where pixels have no fixed range."""
        if self.mode in ("I", "F") and self.bits == 8:
            kind = "integers of more than 16 bits or with signs" if self.mode == "I" else "floating point"
            raise ValueError(
                f"{path} has pixels of {kind}, which have no fixed range; save it with 8-bit or 16-bit channels"
            )


def read_header(path: Path) -> Header:
    """The header of an image file; its pixels are not decoded.

    Raises:
        ValueError: naming the file, where it is missing or Pillow cannot read it.
    """
    with _opened(path) as file:
        return _header(file)


def image_size(path: Path) -> tuple[Size, Size]:
    """Heights and widths (stored, upright): as the pixels lie in the file, and as EXIF's orientation turns them.

    Raises:
        ValueError: see :func:`read_header`.
    """
    header = read_header(path)
    return header.stored, header.upright


def fits(stated: Stated | None, size: Size) -> bool:
    """Whether each side that is stated is that of ``size``."""
    return stated is None or all(side in (None, actual) for side, actual in zip(stated, size, strict=True))


def turned(path: Path, header: Header, size: Stated | None, orientation: str = "auto") -> bool:
    """Whether EXIF's orientation is applied, given the ``size`` (H, W) by which the image was annotated.

    With "auto" it is where ``size`` is None or the upright image's, as viewers do. It is not where ``size`` is only
    that of the pixels as they are stored: then whoever annotated the image ignored the orientation. "apply" and
    "ignore" say so for images of any size.

    Raises:
        ValueError: where ``size`` is none that the image can have so.
    """
    if orientation != "ignore" and fits(size, header.upright):
        return header.orientation != 1
    if orientation != "apply" and fits(size, header.stored):
        return False
    stored, upright = (f"{side[1]} x {side[0]}" for side in (header.stored, header.upright))
    found = f"{stored} ({upright} upright)" if stored != upright else stored
    how = "" if orientation == "auto" or stored == upright else f", its EXIF orientation is to be {HOW[orientation]}"
    height, width = ("?" if side is None else side for side in size)
    raise ValueError(
        f"{path} is {found} pixels{how}, its annotations are for {width} x {height} (width x height); "
        "correct the JSON or the file"
    )


HOW = {"apply": "applied", "ignore": "ignored"}


def is_undecided(header: Header, size: Stated | None) -> bool:
    """Whether the image has an orientation of which the stated ``size`` does not tell if it was applied."""
    return header.orientation != 1 and fits(size, header.upright) and fits(size, header.stored)


def read_image(path: Path, size: Stated | None = None, orientation: str = "auto") -> Tensor:
    """(3, H, W), float32 in 0..1, RGB.

    Grey pixels of 16 bits are divided by 65535, those of 12 bits (TIFF) by 4095. Of colours of 16 bits the upper 8 are
    used. Transparency is ignored. Of animations and files of several pages the first image is read.

    Args:
        path: of a PNG, JPEG, JPEG 2000, WebP, AVIF, TIFF, GIF, BMP, PPM or TGA file.
        size: (H, W) by which the image was annotated, either may be None; it decides on EXIF's orientation, see
            :func:`turned`.
        orientation: "auto", "apply" or "ignore".

    Raises:
        ValueError: naming the file, where it is missing, Pillow cannot read it, it has more pixels than Pillow's limit
            for decompression bombs, its pixels have no fixed range (32-bit, float), or ``size`` contradicts it.
    """
    with _opened(path) as file:
        header = _header(file)
        try:
            header.check_pixels(path)
            apply = turned(path, header, size, orientation)
        except ValueError as error:
            raise _RefusedError(str(error)) from None
        pixels = _pixels(file, header)
        # Pillow turns the pixels of TIFF files itself, and forgets the orientation then.
        is_turned = header.orientation != 1 and _orientation(file) == 1
        if apply and not is_turned:
            pixels = _turn(pixels, header.orientation)
        elif is_turned and not apply:
            pixels = _turn(pixels, {6: 8, 8: 6}.get(header.orientation, header.orientation))
        if tuple(pixels.shape[-2:]) != (header.upright if apply else header.stored):
            raise ValueError("its header contradicts its pixels")
        return pixels.contiguous()


class _RefusedError(ValueError):
    """An error whose message is complete."""


@contextmanager
def _opened(path: Path):
    """The file opened by Pillow; whatever goes wrong within, in reading it, becomes a ValueError that names it."""
    advice = "save it anew as PNG, JPEG or TIFF, or leave it out"
    try:
        if not Path(path).is_file():  # also keeps Pillow from waiting for a pipe
            raise _RefusedError(f"{path}: there is no such image file")
        # Opened here, not by Pillow: it would map raw files into memory, and then mixes up the sides of TIFF files that
        # are to be turned.
        with Path(path).open("rb") as stream, Image.open(stream, formats=_formats()) as file:
            yield file
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path} cannot be read as an image: it is damaged or none of {', '.join(FORMATS)}; {advice}"
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} cannot be read as an image: {error}; cut it into tiles, or raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except MemoryError as error:
        raise ValueError(f"{path} cannot be read as an image: there is not enough memory; {advice}") from error
    except Exception as error:  # a plugin of Pillow can raise anything for a damaged file
        raise ValueError(f"{path} cannot be read as an image: {error or type(error).__name__}; {advice}") from error


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # WebP and AVIF are optional parts of Pillow


def _orientation(file: Image.Image) -> int:
    try:
        # Not file.getexif(), which decodes the whole of a PNG file to look for an orientation behind the pixels.
        value = Image.Image.getexif(file).get(ORIENTATION, 1)
    except Exception:  # viewers ignore damaged EXIF data, too
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _header(file: Image.Image) -> Header:
    width, height = file.size
    orientation = _orientation(file)
    tags = getattr(file, "tag_v2", {}) if file.format == "TIFF" else {}
    if tags:  # Pillow's size is that of the stored or of the upright image, by its version
        width, height = int(tags.get(IMAGE_WIDTH, width)), int(tags.get(IMAGE_LENGTH, height))
    if width < 1 or height < 1:
        raise ValueError(f"it is of {width} x {height} pixels")
    stored = (height, width)
    bits = 8
    if file.mode.startswith("I;16"):
        per_sample = tags.get(BITS_PER_SAMPLE, (16,))
        bits = 12 if tuple(np.atleast_1d(per_sample)) == (12,) else 16
    elif file.mode == "I" and file.format in ("PNG", "PPM"):
        bits = 16  # Pillow before 11 opens PNG files so, and scales PGM files of any depth to 16 bits
    upright = stored[::-1] if orientation >= 5 else stored
    inverted = bits > 8 and tags.get(PHOTOMETRIC) == 0
    return Header(stored, upright, orientation, str(file.format), file.mode, bits, inverted)


def _pixels(file: Image.Image, header: Header) -> Tensor:
    file.load()
    if header.bits > 8:  # converted to RGB, Pillow would clip them at 255
        grey = np.asarray(file).astype(np.float32)
        if grey.ndim != 2:
            raise ValueError(f"its pixels are of shape {grey.shape}")
        grey /= 2**header.bits - 1
        if header.inverted:
            grey = 1 - grey
        return torch.from_numpy(grey).clamp_(0, 1).repeat(3, 1, 1)
    file.info.pop("transparency", None)  # of which Pillow would warn
    pixels = np.array(file.convert("RGB"))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _turn(pixels: Tensor, orientation: int) -> Tensor:
    """(3, H, W) as stored to upright, for EXIF's orientation 2 to 8."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 2)
    axes = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation)
    return pixels.flip(axes) if axes else pixels
