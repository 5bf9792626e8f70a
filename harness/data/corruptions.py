"""Image corruptions at three levels, seeded by the example: noise, blur, JPEG, occlusion.

Strengths are relative to the image, so that they mean the same at every size: noise is Gaussian with a standard
deviation of 10, 25 or 50 (of 255); blur has a radius of 1, 2 or 4 % of the shorter side; JPEG has quality 40, 15 or
5; occlusion covers 5, 15 or 30 % of the image with a grey rectangle of its shape. After ImageNet-C (Hendrycks and
Dietterich 2019). Corruptions, above all occlusion, may hide what the answer depends on: no model stays fully accurate.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from harness.api import Example

Damage = Literal["noise", "blur", "jpeg", "occlusion"]
STRENGTHS: dict[Damage, tuple[float, float, float]] = {
    "noise": (10.0, 25.0, 50.0),
    "blur": (0.01, 0.02, 0.04),
    "jpeg": (40, 15, 5),
    "occlusion": (0.05, 0.15, 0.30),
}
LEVELS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Damaged:
    """The corrupted image of an example; read when it is called, picklable."""

    example: Example
    damage: Damage
    level: int

    def __call__(self) -> Image.Image:
        """The corrupted image as RGB, of the same size."""
        image = self.example.load_image()
        rng = np.random.default_rng(list(f"{self.example.id}/{self.damage}/{self.level}".encode()))
        strength = STRENGTHS[self.damage][self.level - 1]
        match self.damage:
            case "noise":
                pixels = np.asarray(image) + rng.normal(0, strength, (image.height, image.width, 3))
                return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
            case "blur":
                return image.filter(ImageFilter.GaussianBlur(strength * min(image.size)))
            case "jpeg":
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=int(strength))
                return Image.open(buffer).convert("RGB")
            case "occlusion":
                width, height = (max(1, round(side * strength**0.5)) for side in image.size)
                left = int(rng.integers(0, image.width - width + 1))
                top = int(rng.integers(0, image.height - height + 1))
                covered = image.copy()
                covered.paste((128, 128, 128), (left, top, left + width, top + height))
                return covered


def damaged(example: Example, damage: Damage, level: int) -> Example:
    """The same question about the corrupted image, or images."""
    first, *more = (Damaged(one, damage, level) for one in example.each_image())
    return replace(example, image=first, more_images=tuple(more))
