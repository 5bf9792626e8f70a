"""Augmentation that can't change the gold: wording and image quality.

No hue jitter (many golds are colours) and no mirroring (captions say left and right). Image changes are sampled
at once and applied when the image is read.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from harness.api import Augmentation, Example, ImageSource
from harness.images.reading import read

PARAPHRASES = (
    "{question}",
    "Look at the image. {question}",
    "{question} Answer with one option.",
    "Look at the image and answer with one option. {question}",
)
"""Frames for a question: they keep its words, so that they fit every benchmark."""

ZOOM = 0.06
"""The image is shrunk by at most this fraction of its sides; nothing is cropped."""


def augment(example: Example, rng: random.Random, names: Collection[Augmentation]) -> Example:
    """The example in another form with the same gold; random choices come only from `rng`.

    - `paraphrase`: the question in one of four neutral frames.
    - `resize`: half of the images shrink by up to 6 % on their canvas.
    - `degrade`: three of four images get mild JPEG loss, blur or noise.
    - `truncate_context`: up to half of the context's sentences are dropped from its end (which may remove what the gold
      depends on).

    All images of an example get the same changes.
    """
    if "paraphrase" in names:
        example = replace(example, question=rng.choice(PARAPHRASES).format(question=example.question))
    if "truncate_context" in names and example.context:
        sentences = re.split(r"(?<=[.!?])\s+", example.context)
        kept = rng.randint((len(sentences) + 1) // 2, len(sentences))
        example = replace(example, context=" ".join(sentences[:kept]))
    image = clean = Distorted(example.image)
    if "resize" in names and rng.random() < 0.5:
        image = replace(image, shrink=rng.uniform(0.0, ZOOM), at=(rng.random(), rng.random()))
    if "degrade" in names:
        match rng.choice(("jpeg", "blur", "noise", "none")):
            case "jpeg":
                image = replace(image, jpeg=rng.randint(60, 95))
            case "blur":
                image = replace(image, blur=rng.uniform(0.001, 0.005))  # 0.06 to 0.32 of 64 pixels
            case "noise":
                image = replace(image, noise=rng.randint(1, 6), seed=rng.getrandbits(32))
    if image is clean:
        return example
    more = tuple(replace(image, source=source) for source in example.more_images)
    return replace(example, image=image, more_images=more)


@dataclass(frozen=True, slots=True)
class Grey:
    """A plain grey image of another image's size, without content."""

    source: ImageSource

    def __call__(self) -> Image.Image:
        """Mid-grey RGB, of the source's size."""
        return Image.new("RGB", read(self.source).size, (128, 128, 128))


@dataclass(frozen=True, slots=True)
class Distorted:
    """An image with small, seeded distortions; read when it is called, picklable."""

    source: ImageSource
    shrink: float = 0.0
    """Fraction by which the sides shrink; the border gets the colour of the top left pixel."""
    at: tuple[float, float] = (0.0, 0.0)
    """Position of the shrunk image in the free border, 0 to 1 from left and from top."""
    jpeg: int = 0
    """JPEG quality, 1 to 95; 0: not recoded."""
    blur: float = 0.0
    """Radius of a Gaussian blur, as a fraction of the shorter side."""
    noise: int = 0
    """Largest change of a channel (of 255) by uniform noise."""
    seed: int = 0

    def __call__(self) -> Image.Image:
        """The distorted image as RGB, of the same size."""
        image = read(self.source)
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


def _shrunk(image: Image.Image, share: float, at: tuple[float, float]) -> Image.Image:
    width, height = image.size
    small = (max(1, round(width * (1 - share))), max(1, round(height * (1 - share))))
    canvas = Image.new("RGB", image.size, image.getpixel((0, 0)))
    corner = (round((width - small[0]) * at[0]), round((height - small[1]) * at[1]))
    canvas.paste(image.resize(small, Image.Resampling.BILINEAR), corner)
    return canvas
