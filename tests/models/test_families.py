"""Every family of models through transformers' own classes: trained, distilled, scored, kept; the answer's logits
alone, options of several tokens exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.api import Example
from harness.config import RunConfig, parse
from harness.execution.launch import launch
from harness.models import encoding, ladders, loading
from harness.models.scorer import MASKED_LOGIT, OptionScorer
from harness.store import Store
from helpers import families
from helpers.common import picture, rung

FAMILIES = list(families.FAMILIES)
ROWS = 1301
"""Rows of the output layers: more than any family has tokens, and no other size in these models."""

CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "paligemma": "PaliGemmaForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model, built once."""
    root = tmp_path_factory.mktemp("families")

    def of(family: str) -> Path:
        built = root / family
        return built if built.is_dir() else families.build(family, built, rows=ROWS)

    return of


def run(table: dict[str, Any], store: Path) -> Any:
    (record,) = launch([parse(RunConfig, table, "test")], Store(store), "test", lambda _: None)
    return record


# ------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_distilled_scored_and_kept(family: str, toy: str, tmp_path: Path) -> None:
    ladder = families.ladder(tmp_path, L={"family": family, "width": 48, "layers": 3}, S={"family": family, "seed": 1})
    train = {"examples": 48, "batch_size": 8, "lr": 0.001, "validations": 1, "shuffle_options": "none"}
    record = run(
        {"method": "offline_kd", "benchmark": "toy", "benchmark_settings": {"size": 8}, "plugins": [toy],
         "ladder": ladder, "train": train, "evaluate": {"resamples": 100}, "cluster": {"workers": 0},
         "save_student": True},
        tmp_path / "runs",
    )  # fmt: skip
    assert record.status == "done", record.error
    # Both learned, from the same eight examples in each of six steps.
    store = Store(tmp_path / "runs")
    history = store.history(record.run_id)
    for role in ("teacher", "student"):
        losses = history[(history["role"] == role) & (history["term"] == "loss/ce")]["value"].tolist()
        assert len(losses) == 6
        assert losses[-1] < losses[0]
    # Every example of the test split is answered, and the teacher was no smaller than the student.
    assert record.data.sizes["test"] == (store.predictions(record.run_id)["split"] == "test").sum()
    told = [warning for warning in record.preflight.warnings if "can't share an image's prefix" not in warning]
    assert told == []
    assert set(record.preflight.rungs) == {"L", "S"}
    assert all(check.repeat < 1e-5 and check.image_tokens[0] > 0 for check in record.preflight.rungs.values())
    assert record.stages[1].mix.model_dump() == {
        "over": "options",
        "tokenizers": "one",
        "families": {"L": family, "S": family},
        "tokens": None,
        "rows": {},
    }
    # The student that was kept is a whole checkpoint of the same class, and not the one that it began as.
    kept, began = rung(tmp_path / "runs" / record.run_id / "student"), rung(tmp_path / "S")
    vlm, first = loading.load_vlm(kept), loading.load_vlm(began)
    assert type(vlm).__name__ == CLASSES[family]
    assert ladders.inspect(kept).parameters == ladders.inspect(began).parameters == record.parameters
    moved = [not torch.equal(a, b) for a, b in zip(vlm.parameters(), first.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    encoder = encoding.load_encoder(kept)
    batch, scorer = encoder(families.examples()), OptionScorer(vlm, encoder.letters).eval()
    assert torch.equal(batch["input_ids"], encoding.load_encoder(began)(families.examples())["input_ids"])
    assert scorer(batch)["options"].isfinite().all()


# ------------------------------------------------------------------------------------- answer position


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_matter_to_a_family(family: str, folder: Callable[[str], Path]) -> None:
    """Padded left, padded right, or alone; and each picture has its say."""
    scorer, encoder = families.loaded(folder(family))
    asked = families.examples()
    found = {}
    with torch.inference_mode():
        for side in ("left", "right"):
            encoder.processor.tokenizer.padding_side = side
            batch = encoder(asked)
            assert batch["attention_mask"].sum(1).unique().numel() > 1
            assert batch["attention_mask"][:, 0].all() == (side == "right")
            found[side] = scorer(batch)["options"]
        for row, example in enumerate(asked):
            alone = scorer(encoder([example]))["options"][0]
            for side in ("left", "right"):
                torch.testing.assert_close(found[side][row, : len(alone)], alone, atol=1e-5, rtol=0)
        other = scorer(encoder([replace(asked[0], image=picture("blue"))]))["options"][0]
    assert (other - found["left"][0]).abs().max() > 1e-4


class Largest(TorchDispatchMode):
    """Watches for the largest tensor that has the vocabulary as its last dimension, weights left out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            over = isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[-1] == ROWS
            if over and tuple(tensor.shape) != (self.width, ROWS):  # not the output layer's weight
                self.rows = max(self.rows, tensor.numel() // ROWS)
        return result


@contextmanager
def watched(vlm: Any) -> Iterator[tuple[Largest, list[tuple[int, ...]]]]:
    """The largest tensor over the vocabulary, and what comes to the output layer."""
    came: list[tuple[int, ...]] = []
    hook = vlm.get_output_embeddings().register_forward_hook(lambda _, args, __: came.append(tuple(args[0].shape)))
    try:
        with Largest(loading.hidden_size(vlm.config)) as largest:
            yield largest, came
    finally:
        hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_a_sequence_never_exist(family: str, folder: Callable[[str], Path]) -> None:
    """Three questions of about 60 tokens: three rows of logits, in a student's step and in a teacher's answers."""
    scorer, encoder = families.loaded(folder(family))
    width = loading.hidden_size(scorer.vlm.config)
    for side in ("left", "right"):
        encoder.processor.tokenizer.padding_side = side
        batch = encoder(families.examples())
        with watched(scorer.vlm) as (largest, came):
            outputs = scorer.train()(batch, ("vocab", "hidden"))
            outputs["vocab"].logsumexp(-1).sum().backward()
            with torch.inference_mode():
                scorer.eval()(batch)
        assert came == [(3, 1, width)] * 2
        assert largest.rows == 3
    torch.testing.assert_close(scorer.vlm.get_output_embeddings()(outputs["hidden"]), outputs["vocab"])  # type: ignore[operator]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_the_layers_are_those_that_transformers_gives(family: str, folder: Callable[[str], Path]) -> None:
    """With padding on either side; the last state is `hidden`, and gradients flow through each."""
    scorer, encoder = families.loaded(folder(family))
    for side in ("left", "right"):
        encoder.processor.tokenizer.padding_side = side
        batch = encoder(families.examples())
        outputs = scorer.eval()(batch, ("layers", "hidden"))
        inputs = {key: value for key, value in batch.items() if key != "options"}
        states = scorer.vlm(**inputs, output_hidden_states=True).hidden_states[1:]
        last = batch["attention_mask"].shape[1] - 1 - batch["attention_mask"].flip(1).argmax(1)
        want = torch.stack([state_btd[torch.arange(3), last] for state_btd in states], 1)
        torch.testing.assert_close(outputs["layers"], want, atol=1e-5, rtol=1e-4)
        assert torch.equal(outputs["layers"][:, -1], outputs["hidden"])
        with torch.inference_mode():
            assert torch.equal(scorer(batch, ("layers",))["layers"], outputs["layers"])
    outputs["layers"][:, 0].square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in scorer.vlm.get_decoder().parameters())  # type: ignore[operator]


def test_the_watch_sees_logits_of_a_sequence(folder: Callable[[str], Path]) -> None:
    """Asked as usual, the model makes a row of logits for every token of every question."""
    encoder, vlm = encoding.load_encoder(rung(folder("internvl"))), loading.load_vlm(rung(folder("internvl")))
    batch = encoder(families.examples())
    del batch["options"]
    with watched(vlm) as (largest, _), torch.inference_mode():
        vlm(**batch)
    assert largest.rows == batch["input_ids"].numel()


# --------------------------------------------------------------------------------- options of several tokens


def by_hand(scorer: OptionScorer, encoder: encoding.Encoder, example: Example, spelled: Any) -> torch.Tensor:
    """log p of each option: every spelling written behind the question as a whole, and read token by token."""
    result = []
    for spellings in spelled[: len(example.options)]:
        logs = []
        for tokens in spellings:
            batch = encoder([example])
            del batch["options"]
            length = batch["input_ids"].shape[1]
            batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([tokens])], 1)
            for key in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
                if key in batch:  # text that the model has written itself: 0, and for PaliGemma 1
                    suffix = 1 if key == "attention_mask" or "PaliGemma" in type(scorer.vlm).__name__ else 0
                    batch[key] = torch.cat([batch[key], torch.full((1, len(tokens)), suffix)], 1)
            read = scorer.vlm(**batch).logits[0].log_softmax(-1)
            logs.append(sum(read[length - 1 + i, token] for i, token in enumerate(tokens)))
        result.append(torch.stack(logs).logsumexp(0))
    return torch.stack(result)


@pytest.mark.parametrize("family", FAMILIES)
def test_options_of_several_tokens_are_scored_exactly(family: str, folder: Callable[[str], Path]) -> None:
    """Of two and three tokens and of one, with common beginnings and two spellings of one option."""
    encoder = encoding.load_encoder(rung(folder(family)))
    encoder.processor.tokenizer.padding_side = "left"
    spelled = [[(5, 6, 7), (9,)], [(5, 6)], [(8, 5, 6)]]
    scorer = OptionScorer(loading.load_vlm(rung(folder(family))), spelled).eval()
    outputs = scorer(encoder(families.examples()), ("hidden",))
    for example, got in zip(families.examples(), outputs["options"], strict=True):
        want = by_hand(scorer, encoder, example, spelled)
        torch.testing.assert_close(got[: len(want)], want, atol=2e-5, rtol=0)
        assert (got[len(want) :] == MASKED_LOGIT).all()
    # What is learned from them reaches the image's features too.
    outputs["options"][:, 0].sum().backward()
    assert sum(bool(p.grad is not None and p.grad.any()) for n, p in scorer.vlm.named_parameters() if "vis" in n) > 3


def test_a_tokenizer_without_tokens_for_letters(toy: str, tmp_path: Path) -> None:
    """Each letter is two tokens here, the space and itself: one look at the prompt, one token more behind it."""
    arguments = {"family": "qwen2_5_vl", "vocabulary": families.pieces}
    ladder = families.ladder(tmp_path, S=arguments)
    encoder = encoding.load_encoder(rung(tmp_path / "S"))
    assert {len(tokens) for spelled in encoder.letters for tokens in spelled} == {2}
    assert encoder.processor.tokenizer.padding_side == "left"
    scorer = OptionScorer(loading.load_vlm(rung(tmp_path / "S")), encoder.letters).eval()
    with torch.inference_mode():
        got = scorer(encoder(families.examples()))["options"]
        for example, row in zip(families.examples(), got, strict=True):
            want = by_hand(scorer, encoder, example, encoder.letters)
            torch.testing.assert_close(row[: len(want)], want, atol=2e-5, rtol=0)
    train = {"examples": 48, "batch_size": 8, "lr": 0.01, "validations": 1}
    table = {"method": "finetune", "benchmark": "toy", "plugins": [toy], "ladder": ladder, "train": train}
    record = run(table | {"evaluate": {"resamples": 100}, "cluster": {"workers": 0}}, tmp_path / "runs")
    assert record.status == "done", record.error
