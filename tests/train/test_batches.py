"""Questions of one image that share it in training: the same losses and gradients, in an order that joins them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.api import Example, Need
from harness.config import RunConfig, parse
from harness.data import order
from harness.data.image_controls import without_image
from harness.execution.launch import launch
from harness.models import encoding
from harness.models.distributed import SingleProcess
from harness.models.scorer import PREFIX_INDEX, OptionScorer, token_counts
from harness.models.shared_prefix import encoded
from harness.planning import cost as price
from harness.planning import plan
from harness.record import Record
from harness.store import Store
from harness.train import loop
from helpers import families
from helpers.common import ToyConfig

SHARING = [family for family in families.FAMILIES if family != "paligemma"]


def loaded(family: str, folder: Path, **more: Any) -> tuple[OptionScorer, encoding.Encoder]:
    """A model of the family that learns, and its encoder."""
    scorer, encoder = families.loaded(families.build(family, folder, **more))
    return scorer.train(), encoder


# ------------------------------------------------------------------------------------------ exactness


def learned(
    scorer: OptionScorer, batches: Sequence[encoding.Batch], golds: Sequence[Tensor], needs: Sequence[Need]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of all rows, and the gradients of their sum: of the answer, and of what is needed beside it."""
    scorer.zero_grad()
    losses = []
    for batch, gold_b in zip(batches, golds, strict=True):
        outputs = scorer(batch, needs)
        loss_b = cross_entropy(outputs["options"], gold_b, reduction="none")
        for number, need in enumerate(needs):  # some number that all of it moves
            flat = outputs[need].flatten(1)
            loss_b = loss_b + (flat * torch.arange(flat.shape[1]).add(number).sin()).mean(1).square()
        loss_b.sum().backward()
        losses.append(loss_b.detach())
    return torch.cat(losses), {n: p.grad.clone() for n, p in scorer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", SHARING)
def test_losses_and_gradients_are_those_of_each_question_alone(family: str, tmp_path: Path) -> None:
    scorer, encoder = loaded(family, tmp_path)
    examples = families.questions()
    golds = torch.tensor([k % len(example.options) for k, example in enumerate(examples)])
    families.Picture.drawn = 0
    together = encoded(encoder, examples, share=True)
    assert families.Picture.drawn == 3  # of nine questions
    assert PREFIX_INDEX in together
    # Of every picture Gemma makes the same number of visual tokens.
    needs: list[Need] = ["hidden", "vocab", "vision"] if family == "gemma3" else ["hidden", "vocab"]
    loss_b, gradients = learned(scorer, [together], [golds], needs)
    alone_b, expected = learned(scorer, [encoder([e]) for e in examples], list(golds.split(1)), needs)
    torch.testing.assert_close(loss_b, alone_b, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected.keys()
    assert any("vis" in name for name in gradients)  # the images' part of the model learns too
    whole = torch.cat([g.flatten() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        apart = (gradients[name] - gradient).norm()
        assert apart <= 1e-4 * max(gradient.norm(), 1e-2 * whole), name


def test_what_passes_through_the_model_is_counted(tmp_path: Path) -> None:
    """Of each image what its questions begin with once, and of each question the rest; every patch once."""
    scorer, encoder = loaded("qwen2_5_vl", tmp_path)
    examples = families.questions()
    config = scorer.vlm.config
    rows: dict[str, list[list[int]]] = {}
    patches = 0.0
    for example in examples:
        batch = encoder([example])
        ids, mask = batch["input_ids"][0], batch["attention_mask"][0].bool()
        if example.group not in rows:
            patches += token_counts(config, batch)[1]
        rows.setdefault(example.group, []).append(ids[mask].tolist())
    tokens = 0
    for family in rows.values():
        common = 0
        while all(len(ids) > common + 1 and ids[common] == family[0][common] for ids in family):
            common += 1
        tokens += common + sum(len(ids) - common for ids in family)
    assert token_counts(config, encoded(encoder, examples, share=True)) == (tokens, patches)
    assert tokens < 0.7 * token_counts(config, encoder(examples))[0]


def test_what_is_not_shared(tmp_path: Path) -> None:
    """Questions of different images, and options of several tokens, are encoded as ever."""
    _, encoder = loaded("internvl", tmp_path / "words")
    examples = families.questions()
    one_each = list({example.group: example for example in examples}.values())
    assert PREFIX_INDEX not in encoded(encoder, one_each, share=True)
    assert PREFIX_INDEX not in encoded(encoder, examples, share=False)
    _, encoder = loaded("internvl", tmp_path / "pieces", vocabulary=families.pieces)
    assert PREFIX_INDEX not in encoded(encoder, examples, share=True)


# ---------------------------------------------------------------------------------------------- order


def asked(*counts: int) -> list[Example]:
    """So many questions of each image, in no order."""
    found = [
        Example(f"{image}/{k}", str(image), f"{image}".encode(), "", "", ("a", "b"), 0, "c", "test")
        for image, count in enumerate(counts)
        for k in range(count)
    ]
    random.Random(0).shuffle(found)
    return found


def ordered(examples: Sequence[Example], together: int, epoch: int = 0) -> list[Example]:
    n = len(examples)
    return [example for _, example in order.batch_at(examples, 5, epoch * n, n, together)]


def test_one_question_at_a_time_is_the_order_that_it_was() -> None:
    examples = asked(4, 3, 2)
    numbers = [random.Random(f"order/5/{epoch}").sample(range(9), 9) for epoch in range(2)]
    assert [ordered(examples, 1, epoch) for epoch in range(2)] == [[examples[i] for i in part] for part in numbers]


def test_questions_of_an_image_stand_together() -> None:
    examples = asked(*[6] * 10)
    for epoch in range(2):
        seen = ordered(examples, 3, epoch)
        assert sorted(e.id for e in seen) == sorted(e.id for e in examples)  # every one once
        assert all(len({e.group for e in seen[at : at + 3]}) == 1 for at in range(0, 60, 3))
        assert [e.group for e in seen[::6]] != [e.group for e in seen[3::6]]  # chunks are shuffled, not families
    trios = [{frozenset(e.id for e in ordered(examples, 3, n)[at : at + 3]) for at in range(0, 60, 3)} for n in (0, 1)]
    assert trios[0] != trios[1]  # an epoch cuts families otherwise
    # More than an image has: all of it.
    examples = asked(5, 1, 3, 2)
    assert sorted(len(list(part)) for _, part in groupby(ordered(examples, 9), lambda e: e.group)) == [1, 2, 3, 5]
    # Positions alone decide.
    pieces = [e for at in range(0, 22, 4) for _, e in order.batch_at(examples, 5, at, 4, 2)]
    assert pieces[:22] == [*ordered(examples, 2), *ordered(examples, 2, 1)]


def test_a_control_sees_the_order_of_its_run() -> None:
    """Its images are all grey: those that it doesn't see say which questions stand together."""
    examples = asked(4, 3, 2)
    blind = without_image(examples)
    seen = [e.id for _, e in order.batch_at(blind, 5, 0, 9, 2, pictured=examples)]
    assert seen == [e.id for e in ordered(examples, 2)]


def test_ranks_cut_a_batch_into_stretches() -> None:
    """So that an image's questions stay on one; without, they take turns as they did."""
    batch = list(range(7))
    assert [list(order.share_of(batch, rank, 2, group_size=3)) for rank in range(2)] == [[0, 1, 2], [3, 4, 5, 6]]
    assert [list(order.share_of(batch, rank, 3)) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
    for world in range(1, 8):
        parts = [order.share_of(batch, rank, world, group_size=2) for rank in range(world)]
        assert [i for part in parts for i in part] == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ----------------------------------------------------------------------------------------------- runs


@pytest.fixture
def configure(toy_config: ToyConfig, toy_ladder: str) -> ToyConfig:
    """A run on the toy, of 48 questions about three pictures: 6 steps of 8, four questions of a picture together."""

    def made(method: str, ladder: str = toy_ladder, **settings: Any) -> RunConfig:
        budget = {"examples": 48, "lr": 5e-4, "questions_per_image": 4}
        evaluate = {"resamples": 100, "splits": ["test"]}
        return toy_config(method, ladder=ladder, train=budget | settings, evaluate=evaluate)

    return made


def run(config: RunConfig, store: Store) -> tuple[Record, list[float]]:
    (record,) = launch([config], store, "test", lambda _: None)
    assert record.status == "done", record.error
    history = store.history(record.run_id)
    return record, history[history["term"].str.startswith("loss/")]["value"].tolist()


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("offline_kd", {}),
        ("hkd4vlm", {"micro_batch_size": 4, "augmentations": ()}),  # several models that learn
        ("relation_kd", {"lora": {"rank": 2}}),  # visual tokens; adapters learn
        ("offline_kd", {"cache": "auto"}),
    ],
)
def test_a_run_is_the_same_with_and_without(method: str, more: dict[str, Any], configure: ToyConfig,
                                            tmp_path: Path) -> None:  # fmt: skip
    """One order, shared or not: the same losses; as many questions billed, and less work where some is shared."""
    store = Store(tmp_path)
    together, losses = run(configure(method, **more), store)
    alone, expected = run(configure(method, share_prefix=False, **more), store)
    assert together.run_id != alone.run_id != plan.make(configure(method, questions_per_image=1, **more)).run_id
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert together.preflight is not None
    assert together.preflight.warnings == []
    assert all(check.shares_image for check in together.preflight.rungs.values())
    for name, cost in alone.cost.roles.items():
        mine = together.cost.roles[name]
        assert (mine.forwards, mine.trained, mine.recalled) == (cost.forwards, cost.trained, cost.recalled)
        assert mine.flops < cost.flops


class Killed(Exception):
    pass


def test_a_run_that_is_taken_up_again_ends_in_the_same_bits(configure: ToyConfig, tmp_path: Path) -> None:
    planned = plan.make(configure("finetune"))
    whole = loop.train(planned, SingleProcess(), tmp_path / "whole")

    def report(event: dict[str, Any]) -> None:
        if event["step"] == 5 and "losses" in event:  # past the checkpoint at 3
            raise Killed

    with suppress(Killed):
        loop.train(planned, SingleProcess(report), tmp_path / "cut")
    again = loop.train(planned, SingleProcess(), tmp_path / "cut")
    assert again.resumed == 1
    assert again.history == whole.history
    states = [result.student.vlm.state_dict() for result in (whole, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    ("family", "more", "why"),
    [
        ("paligemma", {}, "PaliGemmaForConditionalGeneration can't share an image's prefix"),
        ("internvl", {"vocabulary": families.pieces}, "its tokenizer has no single token for each letter"),
    ],
)
def test_a_model_that_cannot_share_says_so_and_trains(family: str, more: dict[str, Any], why: str,
                                                      configure: ToyConfig, tmp_path: Path) -> None:  # fmt: skip
    ladder = families.ladder(tmp_path, S={"family": family, **more})
    store, short = Store(tmp_path / "runs"), {"examples": 16, "validations": 1}
    record, losses = run(configure("finetune", ladder, **short), store)
    assert record.preflight is not None
    assert any(why in warning and "model 'S'" in warning for warning in record.preflight.warnings)
    assert not record.preflight.rungs["S"].shares_image
    assert losses == run(configure("finetune", ladder, share_prefix=False, **short), store)[1]


def test_the_price_is_what_is_billed(configure: ToyConfig, tmp_path: Path) -> None:
    """Each step has eight questions of one image: what `plan` counts of the first holds of all."""
    config = configure("offline_kd", questions_per_image=8)
    priced = price.of(plan.make(config))["train_flops"]
    record, _ = run(config, Store(tmp_path))
    assert priced == pytest.approx(sum(cost.flops for cost in record.cost.roles.values()), rel=0.02)
    assert priced < 0.5 * price.of(plan.make(configure("offline_kd", questions_per_image=1)))["train_flops"]


def test_gradient_checkpointing_leaves_nothing_to_share(configure: ToyConfig) -> None:
    (told,) = plan.make(configure("finetune", gradient_checkpointing=True)).warnings
    assert told.startswith("train.gradient_checkpointing leaves no cache")
    assert plan.make(configure("finetune", gradient_checkpointing=True, share_prefix=False)).warnings == []


def test_images_of_one_question_each_are_told(configure: ToyConfig) -> None:
    table = configure("finetune").model_dump() | {"benchmark": "scenes_factuality", "plugins": ()}
    small = {"train": 8, "validation": 4, "test": 4, "ood": 4}
    (told,) = plan.make(parse(RunConfig, table | {"benchmark_settings": small}, "test")).warnings
    assert "no image of 'scenes_factuality' has two questions to train on" in told
