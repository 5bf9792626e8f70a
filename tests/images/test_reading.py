"""Pictures are read as viewers show them, whatever their format, mode and orientation."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from benchmarks.scenes.world import make_scene, stream
from harness.api import DataError, Example, read_image
from harness.data.augmentation import Distorted
from harness.data.corruptions import Damaged
from harness.images import reading

T = Image.Transpose
STORED = {  # how a picture lies in a file whose tag says how it is to be turned
    1: None, 2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_90,
    7: T.TRANSVERSE, 8: T.ROTATE_270,
}  # fmt: skip
PIXELS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def example(image: Any) -> Example:
    return Example("x1", "g", image, "what ?", "", ("a", "b"), 0, "c", "s")


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()


def quarters() -> Image.Image:
    """Four colours, wider than high: no two orientations look alike."""
    image = Image.new("RGB", (64, 32), "red")
    for colour, box in (("lime", (32, 0, 64, 16)), ("blue", (0, 16, 32, 32)), ("white", (32, 16, 64, 32))):
        image.paste(colour, box)
    return image


# ---------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_applied(orientation: int, kind: str, tmp_path: Path) -> None:
    turned = STORED[orientation]
    stored = quarters() if turned is None else quarters().transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if "P" in kind else {}
    data = encoded(stored, kind, exif=exif, **lossless)
    (tmp_path / "a").write_bytes(data)
    for source in (data, tmp_path / "a", lambda: Image.open(io.BytesIO(data))):
        for shown in (example(source).load_image(), Distorted(source)()):
            assert shown.mode == "RGB"
            assert shown.size == (64, 32)
            assert np.abs(np.asarray(shown).astype(int) - np.asarray(quarters())).max() < 40  # JPEG's loss


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\xff", b"nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_metadata_of_an_intact_picture_are_ignored(exif: bytes) -> None:
    assert example(encoded(quarters(), "JPEG", exif=exif)).load_image().size == (64, 32)


def test_an_orientation_that_does_not_exist_is_ignored() -> None:
    for number in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = number
        assert example(encoded(quarters(), "PNG", exif=exif)).load_image().size == (64, 32)


# --------------------------------------------------------------------------------------- transparency


@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(4))))
def test_what_is_transparent_is_white(pixels: NDArray[np.uint8]) -> None:
    shown = np.asarray(read_image(encoded(Image.fromarray(pixels, "RGBA"), "PNG"))).astype(float)
    colour, alpha = pixels[..., :3].astype(float), pixels[..., 3:] / 255
    assert np.abs(shown - (colour * alpha + 255 * (1 - alpha))).max() <= 1
    opaque = pixels[..., 3] == 255
    assert (shown[opaque] == colour[opaque]).all()  # bit by bit


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_black_on_nothing_is_black_on_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (2, 2, 6, 6))
    shown = np.asarray(reading.rgb(image.convert("LA").convert(mode) if mode == "La" else image.convert(mode)))
    assert (shown[0, 0] == 255).all()
    assert (shown[3, 3] == 0).all()


@pytest.mark.parametrize(
    ("mode", "nothing", "ink"), [("P", 1, 0), ("L", 255, 7), ("1", 1, 0), ("RGB", (9, 8, 7), (0, 0, 0))]
)
def test_a_colour_that_stands_for_nothing_is_white(mode: str, nothing: Any, ink: Any) -> None:
    image = Image.new(mode, (8, 8), nothing)
    image.paste(ink, (2, 2, 6, 6))
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0])
    shown = np.asarray(read_image(encoded(image, "PNG", transparency=nothing)))
    assert (shown[0, 0] == 255).all()
    assert shown[3, 3].max() < 10


def test_a_grey_of_16_bits_that_stands_for_nothing_is_white() -> None:
    grey = np.full((4, 4), 300, np.uint16)
    grey[0, 0] = 40000
    image = Image.fromarray(grey)
    image.info["transparency"] = 300
    assert np.asarray(reading.rgb(image))[..., 0].tolist() == [[156, 255, 255, 255], *[[255] * 4] * 3]


# ----------------------------------------------------------------------------------- ranges and modes


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_ramp_of_16_bits_stays_a_ramp(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shown = np.asarray(read_image(encoded(Image.fromarray(ramp), kind)))
    assert (shown == (ramp >> 8)[..., None]).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (0, 65535), (-1, 1), (-20, 8e5), (0, 1e9)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_numbers_of_any_range_stay_a_ramp(low: float, high: float, dtype: type) -> None:
    if dtype is np.int32 and high == 1:
        pytest.skip("the integers 0 and 1 are no ramp")
    ramp = np.linspace(low, high, 4096).reshape(64, 64).astype(dtype)
    shown = np.asarray(read_image(encoded(Image.fromarray(ramp), "TIFF")))[..., 0].ravel()
    assert (np.diff(shown.astype(int)) >= 0).all()
    assert (shown[0], shown[-1]) == (0, 255)
    assert len(np.unique(shown)) == 256
    assert np.abs(shown - np.linspace(0, 255, 4096)).max() <= 1.01


def test_an_image_of_one_number_is_readable_and_nan_is_not() -> None:
    assert np.asarray(reading.rgb(Image.fromarray(np.full((2, 2), 1e9, np.float32)))).max() == 0
    assert np.asarray(reading.rgb(Image.fromarray(np.full((2, 2), 0.5, np.float32)))).tolist() == [[[128] * 3] * 2] * 2
    broken = Image.fromarray(np.asarray([[0.5, np.nan]], np.float32))
    with pytest.raises(
        DataError, match=r"example 'x1': image in memory can't be read: some pixels are NaN or infinite"
    ):
        example(lambda: broken).load_image()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_other_modes_are_converted_as_pillow_does(mode: str) -> None:
    image = quarters().convert(mode) if mode != "LAB" else Image.new("LAB", (4, 4), (120, 130, 140))
    assert reading.rgb(image).tobytes() == image.convert("RGB").tobytes()


@given(pixels=PIXELS)
def test_rgb_is_unchanged_bit_by_bit(pixels: NDArray[np.uint8]) -> None:
    image = Image.fromarray(pixels)
    for source in (encoded(image, "PNG"), encoded(image, "BMP"), lambda: image):
        assert (np.asarray(read_image(source)) == pixels).all()


@given(seed=st.integers(0, 10_000))
def test_a_generated_scene_is_what_was_drawn(seed: int) -> None:
    scene = make_scene(stream("test", seed))
    assert scene().mode == "RGB"
    assert example(scene).load_image().tobytes() == scene().tobytes()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    settings = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **settings)
    assert read_image(data).getpixel((4, 4)) == (255, 0, 0)


# ------------------------------------------------------------------------------------ damage and size


@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]),
    place=st.floats(0, 1),
    value=st.integers(0, 255),
)
def test_damage_at_any_byte_is_told_or_harmless(kind: str, place: float, value: int) -> None:
    data = bytearray(encoded(quarters(), kind))
    at = min(int(place * len(data)), len(data) - 1)
    data[at] = value
    for broken in (bytes(data), bytes(data[:at])):
        try:
            shown = example(broken).load_image()
        except DataError as error:
            assert str(error).startswith("example 'x1': image in memory ")  # noqa: PT017
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert shown.mode == "RGB"


def test_whatever_a_callable_raises_names_the_example() -> None:
    def fails() -> Image.Image:
        raise KeyError("no such cell")

    with pytest.raises(DataError, match=r"example 'x1': image in memory can't be read: KeyError\('no such cell'\)"):
        example(fails).load_image()


def test_a_callable_whose_file_is_gone_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"example 'x1': image {tmp_path}/gone\.png does not exist"):
        example(lambda: Image.open(tmp_path / "gone.png")).load_image()


def test_a_huge_image_is_refused_until_it_is_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = tmp_path / "huge.png"
    Image.new("L", (50, 60)).save(path)
    said = r"image .*huge.png has 3,000 pixels, more than the limit of 2,000; .* --set max_image_pixels=3000"
    drawn: Callable[[], Image.Image] = lambda: Image.open(path)  # noqa: E731
    for source in (path, path.read_bytes(), drawn):
        with pytest.raises(DataError, match=said.replace("huge.png", "")):
            example(source).load_image()
    reading.allow(3000)
    assert example(path).load_image().size == (50, 60)
    reading.allow(10)  # what another run allowed stays allowed
    assert example(path).load_image().size == (50, 60)


def test_corrupted_images_are_made_of_what_is_shown() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = Damaged(example(encoded(quarters(), "PNG", exif=exif)), "blur", 1)()
    assert shown.size == (32, 64)
