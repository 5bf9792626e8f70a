"""Questions about images of different size, shape and content, as photographs are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from harness.api import Example
from helpers.families import examples

SIZES = ((64, 64), (96, 64), (40, 120), (200, 50), (33, 47), (128, 128), (57, 190), (300, 200))


def photographed() -> list[Example]:
    """Eight questions about images of different size, shape and content."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in SIZES]
    images = [image.resize(size, Image.Resampling.BICUBIC) for image, size in zip(coarse, SIZES, strict=True)]
    asked = examples()
    return [
        replace(asked[k % 3], id=f"p{k}", image=lambda image=image: image)  # type: ignore[misc]
        for k, image in enumerate(images)
    ]
