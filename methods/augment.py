"""Augmentation that can't change the gold: options, wording and image quality, one switch each.

No hue jitter (many golds are colours) and no mirror (captions say left and right). Image changes are drawn
now and applied when the image is read.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from harness.api import Example
from methods.hkd4vlm.msi import fixed_options
from methods.image import Distorted

PARAPHRASES = (
    "{question}",
    "Look at the image. {question}",
    "{question} Answer with one option.",
    "Look at the image and answer with one option. {question}",
)
"""Frames for a question: they keep its own words, so that they fit every benchmark."""

ZOOM = 0.06
"""The image is shrunk by at most this share of its sides; nothing is cut off."""


def augment(
    example: Example,
    rng: random.Random,
    *,
    shuffle_options: bool,
    fixed_first: bool,
    keep_verdicts: bool = False,
    paraphrase: bool,
    resize: bool,
    degrade: bool,
    truncate_context: bool,
) -> Example:
    """The example in another form with the same gold; a function of `rng` alone.

    `resize` shrinks half of the images by up to 6 %; `degrade` gives three of four JPEG loss, blur or noise;
    `truncate_context` drops a tail of whole sentences (which may remove what the gold rests on).
    """
    if shuffle_options:
        head = fixed_options(example.options, fixed_first, keep_verdicts)
        rest = list(range(head, len(example.options)))
        rng.shuffle(rest)
        example = example.reordered((*range(head), *rest))
    if paraphrase:
        example = replace(example, question=rng.choice(PARAPHRASES).format(question=example.question))
    if truncate_context and example.context:
        sentences = re.split(r"(?<=[.!?])\s+", example.context)
        kept = rng.randint((len(sentences) + 1) // 2, len(sentences))
        example = replace(example, context=" ".join(sentences[:kept]))
    image = clean = Distorted(example.image)
    if resize and rng.random() < 0.5:
        image = replace(image, shrink=rng.uniform(0.0, ZOOM), at=(rng.random(), rng.random()))
    if degrade:
        match rng.choice(("jpeg", "blur", "noise", "none")):
            case "jpeg":
                image = replace(image, jpeg=rng.randint(60, 95))
            case "blur":
                image = replace(image, blur=rng.uniform(0.001, 0.005))  # 0.06 to 0.32 of 64 pixels
            case "noise":
                image = replace(image, noise=rng.randint(1, 6), seed=rng.getrandbits(32))
    return example if image is clean else replace(example, image=image)


def reworded(example: Example, rng: random.Random) -> Example:
    """The example with its options as they stand, but another frame for the question and another image quality."""
    return augment(
        example,
        rng,
        shuffle_options=False,
        fixed_first=False,
        paraphrase=True,
        resize=True,
        degrade=True,
        truncate_context=False,
    )
