"""Families that came later: their scores are those of plain transformers, and an image's questions share its pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.utils import is_torchvision_available

from harness.errors import ModelError
from harness.models.shared_prefix import PrefixSharingScorer
from helpers import families
from helpers.common import rung
from helpers.newer_families import NEEDS_TORCHVISION, NEWER
from helpers.photos import photographed

SWALLOW = ("video_llama_3", "minicpmv4_6")
"""Classes that take `logits_to_keep` among their other arguments and give all logits."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("newer")

    def of(family: str) -> Path:
        built = root / family
        if family in NEEDS_TORCHVISION and not is_torchvision_available():
            pytest.skip("torchvision isn't installed")
        return built if built.is_dir() else families.build(NEWER[family], built, rows=1301)

    return of


@pytest.mark.parametrize("family", NEWER)
def test_scores_are_those_of_plain_transformers(family: str, folder: Callable[[str], Path]) -> None:
    """All logits of each question alone, read at its last token: the same to 1e-5 as in a padded batch."""
    scorer, encoder = families.loaded(folder(family))
    asked = photographed()
    with torch.inference_mode():
        got = scorer(encoder(asked))["options"]
        for example, row in zip(asked, got, strict=True):
            inputs = encoder.unpadded(example)
            del inputs["options"]
            logits_v = scorer.vlm(**inputs).logits[0, -1]
            want = torch.stack([logits_v[[t[0] for t in s]].logsumexp(-1) for s in encoder.letters])
            torch.testing.assert_close(row[: len(example.options)], want[: len(example.options)], atol=1e-5, rtol=0)
    assert got[:, 0].std() > 0.05  # else all of this would hold for a model that says nothing


@pytest.mark.parametrize("family", NEWER)
def test_questions_about_an_image_share_its_pass(family: str, folder: Callable[[str], Path]) -> None:
    """Linear attention's states (Qwen3.5, MiniCPM-V) follow the questions as keys and values do.

    Mllama's text looks at images across, through a mask that its tokens behind a cached prefix don't get: that is
    noticed, and each question is answered alone.
    """
    scorer, encoder = families.loaded(folder(family))
    asked = families.questions()
    shared = PrefixSharingScorer(scorer, encoder, torch.device("cpu"))
    apart = PrefixSharingScorer(scorer, encoder, torch.device("cpu"), share=False)
    for one, other in zip(shared(asked, 8), apart(asked, 8), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)
    assert shared.share == (family != "mllama"), shared.note


@pytest.mark.parametrize("family", SWALLOW)
def test_a_class_may_ignore_logits_to_keep(family: str, folder: Callable[[str], Path]) -> None:
    """Asked for one position, these give them all; the scorer sees the one of the answer."""
    scorer, encoder = families.loaded(folder(family))
    batch = encoder(families.examples())
    inputs = {key: value for key, value in batch.items() if key != "options"}
    with torch.inference_mode():
        assert scorer.vlm(**inputs, logits_to_keep=1).logits.shape[1] == batch["input_ids"].shape[1] > 1
        assert scorer(batch, ("vocab",))["vocab"].shape == (3, 1301)


def test_a_type_that_transformers_does_not_have_is_told(folder: Callable[[str], Path], tmp_path: Path) -> None:
    from harness.models import loading

    for text, says in (
        ('{"model_type": "qwen2_5_omni"}', "its type 'qwen2_5_omni' isn't one that transformers' .* has"),
        ('{"model_type": "molmo", "auto_map": {}}', "'molmo' needs the code in its repository .*-hf in its name"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=rf"model 'S' \(.*\): not a vision-language model .*: {says}"):
            loading.load_vlm(rung(tmp_path))
