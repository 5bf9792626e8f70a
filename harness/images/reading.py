"""A picture from a file, from bytes or from a drawing function, as RGB: as a viewer shows it.

- EXIF's orientation is applied.
- What is transparent is white.
- 16-bit images keep their high byte. Images of integers or floats keep their range: up to 1 (floats), 255 or 65,535;
  any other range is stretched from black to white.
- Of several frames the first is used.
- CMYK, YCbCr, Lab, palettes and grey are converted as Pillow converts them, without colour profiles.

An RGB image without orientation is unchanged, bit by bit.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from harness.images import remote

READER = 2
"""Raised when some file gives other pixels than before. 1: orientation, transparency and 16 bits were ignored."""
MAX_PIXELS = 178_956_970
"""The largest image that is read unless `allow` raises it: Pillow's own limit. As RGB it takes 0.5 GiB."""

_WHITE = (255, 255, 255, 255)

# `read` refuses what is too large. Pillow warns at half of that, with a text that names no file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


VIDEO = re.compile(
    rb".{4}ftyp(?!avif|avis|heic|heix|mif1|msf1)|\x1aE\xdf\xa3|RIFF.{4}AVI |\x00\x00\x01[\xb3\xba]", re.S
)
"""How files of MP4 and MOV, Matroska and WebM, AVI and MPEG begin; AVIF and HEIC are pictures in MP4's container."""


class TooLarge(ValueError):
    """An image has more pixels than are allowed."""


class Video(ValueError):
    """A file is a video."""


def allow(pixels: int) -> None:
    """Let this process read images of up to this many pixels. A lower number than before changes nothing."""
    known = Image.MAX_IMAGE_PIXELS
    if known is not None:
        Image.MAX_IMAGE_PIXELS = max(known, -(-pixels // 2))  # Pillow refuses twice this number


def read(source: Path | bytes | Callable[[], Image.Image]) -> Image.Image:
    """The picture as RGB. Raises `TooLarge`, or what Pillow or the callable raises if it can't be read."""
    if isinstance(source, Path | bytes):
        with opened(source) as file:
            return rgb(file)
    with _limited():
        return rgb(source())


@contextmanager
def opened(source: Path | bytes) -> Iterator[Image.Image]:
    """A file or bytes as Pillow's image, whose pixels are not decoded yet. Raises like `read`."""
    with _limited():
        try:
            local = isinstance(source, Path) and not remote.is_remote(source)
            file = Image.open(source if local else io.BytesIO(encoded(source)))
        except UnidentifiedImageError:
            if _is_video(source):
                raise Video(
                    "is a video: models get pictures here; save the frames that matter as images, and give an example "
                    "several of them"
                ) from None
            raise
        with file:
            yield file


def encoded(source: Path | bytes) -> bytes:
    """The bytes of an encoded image, fetched if its file lies behind an address. Raises `OSError`."""
    return source if isinstance(source, bytes) else remote.content(source)


def _is_video(source: Path | bytes) -> bool:
    if isinstance(source, bytes) or remote.is_remote(source):
        return VIDEO.match(encoded(source)) is not None
    with source.open("rb") as file:
        return VIDEO.match(file.read(16)) is not None


@contextmanager
def _limited() -> Iterator[None]:
    """Within the context, `TooLarge` is raised where Pillow refuses an image's size."""
    try:
        yield
    except Image.DecompressionBombError as error:
        size = re.search(r"\d+", str(error))
        raise TooLarge(too_large(int(size[0]) if size else 0, 2 * (Image.MAX_IMAGE_PIXELS or 0))) from None


def too_large(pixels: int, most: int) -> str:
    """What is said of an image with too many pixels."""
    return (
        f"{pixels:,} pixels, more than the limit of {most:,}; scale it down, or allow it with --set "
        f"max_image_pixels={pixels}"
    )


def reason(error: Exception) -> str:
    """Why `read` failed, as the end of a sentence about the image."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return "does not exist"
    if isinstance(error, TooLarge):
        return f"has {error}"
    if isinstance(error, Video):
        return str(error)
    if isinstance(error, UnidentifiedImageError):  # its text has an address in memory
        return "can't be read: not an image of a known format"
    plain = isinstance(error, OSError | SyntaxError | ValueError) and str(error)
    return f"can't be read: {error if plain else repr(error)}"


def rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, as the module describes. Raises `ValueError` for pixels that aren't finite numbers."""
    image.load()  # a file's orientation and transparency may stand behind its pixels
    image = _upright(image)
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image)
    if image.has_transparency_data:
        picture = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # damaged metadata of an intact picture: a dozen types
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits, of integers or of floats as RGB."""
    pixels = np.asarray(image)
    if not np.isfinite(pixels).all():
        raise ValueError("some pixels are NaN or infinite, expected numbers")
    low, high = float(pixels.min()), float(pixels.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    if image.mode == "F" and low >= 0 and high <= 1:
        grey = np.rint(pixels * 255.0)
    elif low >= 0 and high <= 255:
        grey = np.rint(pixels * 1.0)
    elif low >= 0 and high <= 65535:
        grey = np.floor(pixels / 256.0)  # the high byte, as Pillow reads colours of 16 bits
    else:
        grey = np.rint((pixels - low) * (255 / ((high - low) or 1.0)))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the grey level that stands for nothing
        grey = np.where(pixels == transparent, 255, grey)
    return Image.fromarray(np.asarray(grey, dtype=np.uint8), "L").convert("RGB")
