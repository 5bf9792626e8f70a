"""Answers that a student writes: the plain model's most probable tokens, read by the rules, and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.scenes.factuality import ScenesFactuality
from harness.api import Example
from harness.config import EvaluateConfig, RungConfig, TemplateConfig, parse
from harness.errors import ConfigError, ModelError
from harness.evaluation.generation import Writer, voted
from harness.execution import run
from harness.leaderboard.leaderboard import ranking
from harness.leaderboard.schema import Filters
from harness.models import encoding, ladders, loading
from harness.models.distributed import SingleProcess
from harness.models.encoding import Encoder
from harness.models.scorer import OptionScorer
from harness.report.columns import ranking_columns
from harness.store import Store
from harness.submission import consistency
from harness.submission.flops import plan_flops
from harness.submission.verify import verify
from helpers import families
from helpers.common import ToyPlan

OPTIONS = ("red", "green", "blue")


def test_the_answer_is_that_of_most_texts() -> None:
    texts = ["Answer: B", "the cup", "Answer: A", "I say green", "red"]
    found = voted(OPTIONS, texts, 40)
    assert (found.chosen, found.text, found.tokens) == (1, "Answer: B", 40)  # A and B have two each, B was first
    np.testing.assert_allclose(np.exp(found.scores_k), (np.array([2, 2.5, 0]) + 1 / 3) / 5.5)
    assert found.scores_k.argmax() == 1
    none = voted(OPTIONS, ["no idea", "A or B"], 7)
    assert (none.chosen, none.text) == (-1, "no idea")
    np.testing.assert_allclose(np.exp(none.scores_k), 1 / 3)


def test_other_runs_keep_their_identity() -> None:
    """What is for written answers isn't there where none are written."""
    assert "answer" not in EvaluateConfig().model_dump()
    assert parse(EvaluateConfig, EvaluateConfig().model_dump(mode="json"), "again") == EvaluateConfig()
    written = EvaluateConfig(answer="generate", samples=3, temperature=0.7)
    assert parse(EvaluateConfig, written.model_dump(mode="json"), "again") == written


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"max_tokens": 9}, "max_tokens without answer = 'generate'"),
        ({"answer": "generate", "shifts": "cyclic"}, "no option scores to shift"),
        ({"answer": "generate", "samples": 2}, "raise temperature"),
    ],
)
def test_settings_that_do_nothing_are_refused(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(EvaluateConfig, table, "test")


def continued(scorer: OptionScorer, encoder: Encoder, example: Example, behind: list[int], most: int) -> list[int]:
    """The most probable tokens behind a question and what follows it: each from a whole pass, nothing cached."""
    asked = {name: tensor for name, tensor in encoder.unpadded(example).items() if name != "options"}
    said: list[int] = []
    for _ in range(most):
        inputs, more = dict(asked), torch.tensor([[*behind, *said]], dtype=torch.long)
        for name, tensor in asked.items():
            if tensor.shape == asked["input_ids"].shape:
                fill = {"input_ids": more, "attention_mask": torch.ones_like(more)}.get(name, torch.zeros_like(more))
                inputs[name] = torch.cat([tensor, fill.to(tensor)], 1)
        with torch.no_grad():
            said.append(int(scorer.vlm(**inputs, use_cache=False).logits[0, -1].argmax()))
        if said[-1] == encoder.end:
            break
    return said


def test_a_student_writes_its_most_probable_tokens() -> None:
    """The tiny ladder's smallest, asked for a sentence: what it says is what the plain model says."""
    rung = next(rung for rung in ladders.find("tiny").rungs if rung.name == "S")
    encoder = encoding.load_encoder(rung)
    scorer = OptionScorer(loading.load_vlm(rung), encoder.letters).eval()
    examples = [example.explained() for example in ScenesFactuality(train=1, test=3).load("test")][:2]
    writer = Writer(scorer, encoder, EvaluateConfig(answer="generate", max_tokens=6), 0, torch.device("cpu"))
    for example, found in zip(examples, writer(examples, ["a", "b"], 2), strict=True):
        expected = continued(scorer, encoder, example, [], 6)
        assert (found.text, found.tokens) == (encoder.said(expected), len(expected))


SWITCH = (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)


def test_a_thought_is_closed_where_its_budget_ends(tmp_path: Path) -> None:
    folder = families.build("qwen3_vl", tmp_path / "S", more="think")
    scorer, plain = families.loaded(folder)
    example = families.examples()[0]
    with pytest.raises(ModelError, match="no switch that lets it think"):
        plain.thinking()
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace(SWITCH.partition("{% if enable")[0], SWITCH))
    rung = RungConfig(name="S", model=str(folder), template=TemplateConfig(enable_thinking=False))
    encoder = encoding.load_encoder(rung)
    evaluate = EvaluateConfig(answer="generate", max_tokens=3, thinking_tokens=4)
    (found,) = Writer(scorer, encoder, evaluate, 0, torch.device("cpu"))([example], ["a"], 1)
    thinks, tags = encoder.thinking()
    assert tags == ("<think>", "</think>")
    assert encoder.text(example).endswith("</think>\n\n")
    assert thinks.text(example).endswith("assistant\n<think>\n")
    first = continued(scorer, thinks, example, [], 4)
    thought = thinks.said(first).strip()
    behind = [*thinks.response(thought)[:-1], *thinks.plain_ids("\n</think>\n\n")]
    answer = continued(scorer, thinks, example, behind, 3)
    assert found.text == f"<think>{thought}</think>{thinks.said(answer)}"
    assert found.tokens == len(first) + len(answer)


def test_written_answers_are_a_row_of_their_own(toy_plan: ToyPlan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    writes = {"answer": "generate", "max_tokens": 4, "samples": 3, "temperature": 1.0}
    for evaluate in ({}, writes):
        run.execute(toy_plan("zero_shot", evaluate=evaluate), SingleProcess(), store)
    by_mode = {"answer" in record.config["evaluate"]: record for record in store.records() if record.kind == "run"}
    written, scored = by_mode[True], by_mode[False]
    assert written.run_id != scored.run_id
    frame = store.predictions(written.run_id, "test")
    assert "tokens" not in store.predictions(scored.run_id).columns  # a table as it was before
    assert set(frame["tokens"]) <= set(range(3, 13))
    assert written.cost.test_forwards == 3 * scored.cost.test_forwards
    figures = written.metrics["test"]
    assert figures["answer_tokens"].value == frame["tokens"].mean()
    assert figures["parse_failures"].value == (frame["chosen"] == -1).mean()
    report = verify(store, written.run_id, flops=plan_flops)
    assert not report.of("changed"), report.findings
    (table,) = ranking(store, Filters(benchmark="toy")).tables
    labels = {row.label: row.tokens_per_answer for row in table.rows if row.kind == "run"}
    assert labels.pop("zero_shot") is None
    assert list(labels.values()) == [figures["answer_tokens"].value]
    assert "evaluate.answer=generate" in next(iter(labels))
    assert next(c for c in ranking_columns(table.rows) if c.name == "tokens").shown(table.rows)


def test_a_text_that_says_something_else_is_found(toy_plan: ToyPlan, tmp_path: Path) -> None:
    planned = toy_plan("zero_shot")
    rows = [
        (e.id, e.group, e.category, e.known_gold, k, text)
        for e, k, text in zip(planned.dataset.splits["test"], (0, 1), ("Answer: A", "Answer: A"), strict=False)
    ]
    frame = pd.DataFrame(rows, columns=["id", "group", "category", "gold", "chosen", "text"])
    frame = frame.assign(split="test", scores=[[]] * len(frame), seconds=0.0)
    assert list(consistency.in_golds(frame, planned.dataset)) == []
    (wrong,) = consistency.in_golds(frame, planned.dataset, reads=True)
    assert wrong == "example 't1' of test: the choice is 1, its text says 0"
