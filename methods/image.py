"""Images in another form: sources that draw when called, picklable, from a source."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from harness.api import ImageSource


@dataclass(frozen=True, slots=True)
class Grey:
    """An image's size in plain grey: a picture of nothing."""

    source: ImageSource

    def __call__(self) -> Image.Image:
        """Mid-grey RGB, of the source's size."""
        return Image.new("RGB", _read(self.source).size, (128, 128, 128))


@dataclass(frozen=True, slots=True)
class Distorted:
    """An image as it looks after small, seeded damage; read when called, picklable."""

    source: ImageSource
    shrink: float = 0.0
    """Share by which the sides shrink; the border takes the colour of the top left pixel."""
    at: tuple[float, float] = (0.0, 0.0)
    """Where the shrunk image lies in the free border, 0 to 1 from left and from top."""
    jpeg: int = 0
    """JPEG quality, 1 to 95; 0: not recoded."""
    blur: float = 0.0
    """Radius of a Gaussian blur, as a share of the shorter side."""
    noise: int = 0
    """Largest change of a channel (of 255) by uniform noise."""
    seed: int = 0

    def __call__(self) -> Image.Image:
        """The damaged image as RGB, of the same size."""
        image = _read(self.source)
        if self.shrink:
            image = _shrunk(image, self.shrink, self.at)
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.blur * min(image.size)))
        if self.noise:
            pixels = np.asarray(image)
            change = np.random.default_rng(self.seed).integers(
                -self.noise, self.noise + 1, pixels.shape, dtype=np.int16
            )
            image = Image.fromarray((pixels + change).clip(0, 255).astype(np.uint8))
        if self.jpeg:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=self.jpeg, subsampling=0)  # small objects keep their colour
            image = Image.open(buffer).convert("RGB")
        return image


def _read(source: ImageSource) -> Image.Image:
    if isinstance(source, Path):
        with Image.open(source) as file:
            return file.convert("RGB")
    image = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source()
    return image.convert("RGB")


def _shrunk(image: Image.Image, share: float, at: tuple[float, float]) -> Image.Image:
    width, height = image.size
    small = (max(1, round(width * (1 - share))), max(1, round(height * (1 - share))))
    canvas = Image.new("RGB", image.size, image.getpixel((0, 0)))
    corner = (round((width - small[0]) * at[0]), round((height - small[1]) * at[1]))
    canvas.paste(image.resize(small, Image.Resampling.BILINEAR), corner)
    return canvas
