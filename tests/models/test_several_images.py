"""Examples with several images: each image has its say, in its place, in every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.utils import is_torchvision_available

from harness.models import loading
from harness.models.shared_prefix import PrefixSharingScorer
from helpers import families
from helpers.families import Picture
from helpers.newer_families import NEEDS_TORCHVISION, NEWER

FAMILIES = families.FAMILIES | NEWER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("families")

    def of(family: str) -> Path:
        if family in NEEDS_TORCHVISION and not is_torchvision_available():
            pytest.skip("torchvision isn't installed")
        return root / family if (root / family).is_dir() else families.build(FAMILIES[family], root / family, rows=1301)

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_each_image_is_seen_in_its_place(family: str, folder: Callable[[str], Path]) -> None:
    scorer, encoder = families.loaded(folder(family))
    one = families.examples()[0]
    two = replace(one, id="two", more_images=(Picture("blue", 64),))
    swapped = replace(two, id="swapped", image=two.more_images[0], more_images=(two.image,))
    same = replace(two, id="same", more_images=(two.image,))
    asked = [one, two, swapped, same]
    with torch.inference_mode():
        batch = encoder(asked)
        found = scorer(batch)["options"].log_softmax(-1)
        for example, row in zip(asked, found, strict=True):
            inputs = encoder.unpadded(example)
            del inputs["options"]
            logits_v = scorer.vlm(**inputs).logits[0, -1]
            plain = torch.stack([logits_v[[t[0] for t in s]].logsumexp(-1) for s in encoder.letters[:3]])
            torch.testing.assert_close(row, plain.log_softmax(-1), atol=1e-5, rtol=0)
    counts = (batch["input_ids"] == loading.image_token(scorer.vlm.config)).sum(1).tolist()
    tiled = family == "llava_onevision"  # it cuts an image into tiles only if it is the only one
    assert counts[1] == counts[2] == counts[3] == (34 if tiled else 2 * counts[0])
    ordered = () if family == "mllama" else ((1, 2),)  # its text looks at images across, without places
    for a, b in ((0, 1), *ordered, (1, 3)):
        assert (found[a] - found[b]).abs().max() > 1e-5, (asked[a].id, asked[b].id)


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_questions_about_the_same_images_share_their_pass(family: str, folder: Callable[[str], Path]) -> None:
    """The unit is the tuple of images: an example with the first image alone is a prefix of its own."""
    scorer, encoder = families.loaded(folder(family))
    pair = [replace(e, more_images=(Picture("green", 64),)) for e in families.questions()]
    asked = [*pair, families.questions()[0]]
    shared = PrefixSharingScorer(scorer, encoder, torch.device("cpu"))
    apart = PrefixSharingScorer(scorer, encoder, torch.device("cpu"), share=False)
    for one, other in zip(shared(asked, 8), apart(asked, 8), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)
    assert shared.share, shared.note
