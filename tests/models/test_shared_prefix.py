"""Questions of one image that share it: the same answers as one by one, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config import EvaluateConfig
from harness.data.order import by_image
from harness.evaluation.predict import batches_of, evaluate
from harness.evaluation.shifts import Asking
from harness.execution.launch import launch
from harness.models import encoding, scorer
from harness.models.distributed import SingleProcess
from harness.models.shared_prefix import _prefixes
from harness.store import Store
from helpers import families
from helpers.common import ToyConfig
from methods.zero_shot import ZeroShot

ASKING = Asking(ZeroShot(), EvaluateConfig())
SHARING = [family for family in families.FAMILIES if family != "paligemma"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[scorer.OptionScorer, encoding.Encoder]]:
    """A family's scorer and encoder, built once."""
    root, built = tmp_path_factory.mktemp("prefix"), {}

    def of(family: str, **more: Any) -> tuple[scorer.OptionScorer, encoding.Encoder]:
        name = family + "-".join(more)
        if name not in built:
            built[name] = families.loaded(families.build(family, root / name, **more))
        return built[name]

    return of


def scores(model: tuple[scorer.OptionScorer, encoding.Encoder], share: bool, size: int = 64) -> tuple[Any, int, str]:
    families.Picture.drawn = 0
    rows, forwards, note = evaluate(model, ASKING, families.questions(), "test", size, SingleProcess(), share)
    assert [row["id"] for row in rows] == [example.id for example in families.questions()]
    assert forwards == 9
    return rows, families.Picture.drawn, note


@pytest.mark.parametrize("family", SHARING)
def test_a_family_answers_alike_with_a_shared_image(family: str, loaded: Any) -> None:
    alone, drawn_alone, _ = scores(loaded(family), share=False)
    together, drawn, note = scores(loaded(family), share=True)
    assert note == ""
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-4, rtol=0)
        assert one["chosen"] == other["chosen"]
    assert drawn_alone == 9
    assert drawn == 3 + 4  # one an image, and four asked both ways
    again, _, _ = scores(loaded(family), share=True, size=4)  # five of one image are cut, images mixed otherwise
    for one, other in zip(alone, again, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-4, rtol=0)


def test_an_image_that_sees_the_question_is_not_shared(loaded: Any) -> None:
    """PaliGemma's image tokens look at the whole prompt: the check finds it, the answers stay right."""
    alone, _, _ = scores(loaded("paligemma"), share=False)
    together, _, note = scores(loaded("paligemma"), share=True)
    assert "PaliGemmaForConditionalGeneration can't share" in note
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_options_of_several_tokens(family: str, loaded: Any) -> None:
    """Each letter is two tokens: the second stands behind the question, which stands behind the shared beginning."""
    model = loaded(family, vocabulary=families.pieces)
    assert {len(tokens) for spelled in model[0].spelled for tokens in spelled} == {2}
    alone, _, _ = scores(model, share=False)
    together, _, note = scores(model, share=True)
    assert note == ""
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-4, rtol=0)


def test_a_wrong_answer_is_found(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that errs in the shared way only: the check gives it up, and the answers are those one by one."""
    model = loaded("internvl")
    right = scores(model, share=False)[0]
    true = scorer.OptionScorer._prefixed

    def erring(*args: Any) -> tuple[dict[str, Any], scorer.Outputs]:
        given, seen = true(*args)
        return given | {"input_ids": given["input_ids"].roll(1, 1)}, seen

    monkeypatch.setattr(scorer.OptionScorer, "_prefixed", erring)
    found, _, note = scores(model, share=True)
    assert "its answers then differ by" in note
    for one, other in zip(right, found, strict=True):
        np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5, rtol=0)

    def broken(*args: Any) -> None:
        raise NotImplementedError("no cache here")

    monkeypatch.setattr(scorer.OptionScorer, "_prefixed", broken)
    assert "(no cache here)" in scores(model, share=True)[2]


def test_shifted_options_share_all_before_them(loaded: Any) -> None:
    """Four views of one question: one beginning, which ends where the first option differs."""
    _, encoder = loaded("qwen2_5_vl")
    asked = replace(families.questions()[0], options=("red", "green", "blue", "white"))
    views = [asked.reordered([(k + shift) % 4 for k in range(4)]) for shift in range(4)]
    (branches,) = _prefixes(encoder, views, [[0, 1, 2, 3]])
    tokenizer = encoder.processor.tokenizer
    assert tokenizer.decode(branches.tails[0]).startswith("red B")
    assert tokenizer.decode(branches.tails[1]).startswith("green B")


def test_examples_of_an_image_are_in_one_batch() -> None:
    """By image, then by length: 5 + 3 + 1 examples in batches of 6."""
    asked = families.questions()
    assert sorted(map(len, by_image(asked))) == [1, 3, 5]
    batches = batches_of(asked, 6)
    assert sorted(i for batch in batches for i in batch) == list(range(9))
    assert all(len(batch) <= 6 for batch in batches)
    where = {asked[i].group: b for b, batch in enumerate(batches) for i in batch}
    assert all(where[asked[i].group] == b for b, batch in enumerate(batches) for i in batch)
    # Two ranks have every example once; more questions of an image than a batch holds are cut.
    ranks = [i for rank in range(2) for batch in batches_of(asked, 2, rank, 2) for i in batch]
    assert sorted(ranks) == list(range(9))
    assert max(len(batch) for batch in batches_of(asked, 2)) == 2


def test_the_flag_of_a_run(tmp_path: Path, toy_config: ToyConfig) -> None:
    """On and off are two runs that come to the same answers."""
    store, runs = Store(tmp_path), []
    for share in (True, False):
        config = toy_config("zero_shot", evaluate={"share_prefix": share, "resamples": 100})
        (record,) = launch([config], store, "test", lambda _: None)
        assert record.status == "done"
        assert record.preflight is not None
        assert record.preflight.warnings == []
        runs.append(record)
    assert runs[0].run_id != runs[1].run_id
    on, off = (store.predictions(record.run_id) for record in runs)
    assert on["id"].tolist() == off["id"].tolist()
    np.testing.assert_allclose(np.stack(on["scores"]), np.stack(off["scores"]), atol=1e-4)
