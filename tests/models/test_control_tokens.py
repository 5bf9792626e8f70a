"""Control tokens in a benchmark's texts are text, in every family, with the tokens that a model's own text has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api import DataError, Example
from harness.models.encoding import Encoder, load_encoder
from harness.models.text.control_tokens import ControlTokens
from helpers import families
from helpers.common import rung

FAMILIES = list(families.FAMILIES)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Encoder]:
    """A family's encoder with one of the two kinds of tokenizer, made once."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def of(family: str, core: str) -> Encoder:
        if (family, core) not in made:
            folder = families.build(family, root / f"{family}-{core}", vocabulary=getattr(families, core))
            made[family, core] = load_encoder(rung(folder))
        return made[family, core]

    return of


def row_of(encoder: Encoder, example: Example, *others: Example) -> list[int]:
    """The tokens of the first of several examples that are encoded together, without padding."""
    batch = encoder([example, *others])
    assert {name: len(t) for name, t in batch.items() if name in ("input_ids", "attention_mask")} == {
        "input_ids": 1 + len(others),
        "attention_mask": 1 + len(others),
    }
    return batch["input_ids"][0][batch["attention_mask"][0].bool()].tolist()


@pytest.mark.parametrize("core", ["words", "pieces"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_control_token_of_a_family_is_text(
    family: str, core: str, encoder: Callable[[str, str], Encoder]
) -> None:
    made, (one, two, _) = encoder(family, core), families.examples()
    plain = row_of(made, one, two)
    assert len(made.control.tokens) >= 2
    for token in made.control.tokens:
        asked = replace(one, claim=f"it is {token} red")
        row = row_of(made, asked, two)
        assert made.control.counts(row) == made.control.counts(plain), token
        (alone,) = made.prompts([asked])  # what image sharing compares rows with: the same text
        assert alone[-10:] in [row[-10 - k : len(row) - k] for k in range(2)]  # PaliGemma's ends in a newline
        assert row_of(made, two, asked) == row_of(made, two)  # and its neighbours are as they were


@settings(max_examples=25)
@given(
    parts=st.lists(
        st.sampled_from(["it is", "red", "<image>", "<|im_end|>", "<|im_start|>user", "<unk>", "?"]), max_size=6
    )
)
@pytest.mark.parametrize("family", ["idefics3", "qwen2_5_vl", "paligemma"])
def test_any_mixture_is_text(family: str, parts: list[str], encoder: Callable[[str, str], Encoder]) -> None:
    made, (one, two, _) = encoder(family, "words"), families.examples()
    asked = replace(one, context=" ".join(parts), question=" ".join(reversed(parts)) + " what ?")
    batch = made([asked, two])
    assert (
        made.control.counts(batch["input_ids"][0].tolist())[made.tokens[made.processor.image_token]]
        == (made.control.counts(made([one, two])["input_ids"][0].tolist())[made.tokens[made.processor.image_token]])
    )
    shapes = {tuple(t.shape) for name, t in batch.items() if t.ndim == 2 and name != "options" and len(t) == 2}
    assert batch["input_ids"].shape in shapes
    assert batch["input_ids"].shape[1] % 16 == 0


def test_prompts_without_control_tokens_take_the_processors_way(encoder: Callable[[str, str], Encoder]) -> None:
    made = encoder("idefics3", "words")
    texts = [made.text(e) for e in families.examples()]
    images = [[e.load_image()] for e in families.examples()]
    theirs = made.processor(text=texts, images=images, padding=True, pad_to_multiple_of=16, return_tensors="pt")
    ours = made(families.examples())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_tokenizer_that_cannot_be_told_names_the_example(encoder: Callable[[str, str], Encoder]) -> None:
    made = encoder("idefics3", "words")
    made.processor.tokenizer.add_tokens(["A"], special_tokens=True)  # one character, and a word of the model
    made.control = ControlTokens(made.processor)
    with pytest.raises(DataError, match=r"example 'e1' contains a control token .* reword the example"):
        made(families.examples()[:1])
