"""A rung's option scores are compared with those of plain passes before any run: a wrong scorer is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.errors import ModelError
from harness.models import encoding, scorer
from harness.models.distributed import SingleProcess
from harness.planning import plan
from harness.record import RungCheck
from harness.train import preflight
from helpers import families
from helpers.common import ToyConfig


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.build("qwen2_5_vl", tmp_path_factory.mktemp("qwen") / "S")


def tried(toy_config: ToyConfig, folder: Path) -> RungCheck:
    """What the preflight of a run that trains nothing finds out about a model."""
    ladder = [{"name": "S", "model": str(folder)}]
    small = {"benchmark_settings": {"size": 8}, "evaluate": {"resamples": 100}, "ladder": ladder}
    made = plan.make(toy_config(method="zero_shot", **small))
    return preflight.check(made, encoding.load_encoders(made.rungs), SingleProcess()).rungs["S"]


def of_the_token_before(patch: pytest.MonkeyPatch) -> None:
    """It reads one position too early, in every batch alike."""
    caught = scorer._caught
    patch.setattr(scorer, "_caught", lambda vlm, needs, last_b: caught(vlm, needs, last_b - 1))


def of_another_token(patch: pytest.MonkeyPatch) -> None:
    """Its score of option B is a thousandth too high."""
    letters = scorer.OptionScorer._letters

    def scored(self: scorer.OptionScorer, logits_bv: torch.Tensor, options_bk: torch.Tensor) -> torch.Tensor:
        return letters(self, logits_bv, options_bk) + 1e-3 * (torch.arange(options_bk.shape[1]) == 1)

    patch.setattr(scorer.OptionScorer, "_letters", scored)


@pytest.mark.parametrize("wrong", [of_the_token_before, of_another_token])
def test_a_wrong_scorer_is_caught(
    wrong: Callable[[pytest.MonkeyPatch], None], toy_config: ToyConfig, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either gives a question the same answer in every batch: only the plain pass tells."""
    reference = tried(toy_config, qwen).reference
    assert reference is not None
    assert 0 <= reference < 1e-5
    wrong(monkeypatch)
    with pytest.raises(ModelError, match=r"'S' .*: on example '.*' its option scores differ by .* in the plain way"):
        tried(toy_config, qwen)


def test_a_letter_of_several_tokens_is_compared_too(toy_config: ToyConfig, tmp_path: Path) -> None:
    folder = families.build("qwen2_5_vl", tmp_path / "S", vocabulary=families.pieces)
    reference = tried(toy_config, folder).reference
    assert reference is not None
    assert 0 <= reference < 2e-5
