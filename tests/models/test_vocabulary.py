"""What models are compared over: padded vocabularies of one tokenizer; or, of any two, the options."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.config import RunConfig, RungConfig
from harness.data import order
from harness.errors import ConfigError, ModelError
from harness.execution.launch import launch
from harness.models import encoding, loading, vocabulary
from harness.models.encoding import Encoder
from harness.models.scorer import OptionScorer
from harness.planning import plan
from harness.report.run import mix_text
from harness.store import Store
from helpers import families
from helpers.common import ToyConfig

TOKENS = {"a": 0, "b": 1, "c": 2}


def config(toy_config: ToyConfig, ladder: str, **settings: Any) -> RunConfig:
    return toy_config("offline_kd", settings=settings, benchmark_settings={"size": 8}, ladder=ladder,
                      train={"examples": 16, "validations": 1}, evaluate={"resamples": 100})  # fmt: skip


# ---------------------------------------------------------------------------------------------- proof


def test_equal_tokens_are_proved_whatever_the_padding() -> None:
    proof = vocabulary.prove({"7B": TOKENS, "3B": dict(reversed(TOKENS.items()))}, {"7B": 8, "3B": 3}, "here")
    assert (proof.tokens, proof.rows) == (3, {"7B": 8, "3B": 3})
    tokens, rows = {f"t{i}": i for i in range(151_665)}, {"7B": 152_064, "3B": 151_936}  # Qwen2.5-VL's
    proof = vocabulary.prove({"7B": tokens, "3B": tokens}, rows, "here")
    assert (proof.tokens, proof.rows) == (151_665, rows)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"a": 0, "b": 2, "c": 1}, "here: compares vocabularies, but 2 of 3 tokens, like 'b', have different ids"),
        ({"a": 0, "b": 1}, "1 of 3 tokens, like 'c', have different ids in rung '3B' and rung '7B'"),
        (TOKENS | {"d": 3}, "1 of 4 tokens, like 'd'"),
    ],
)
def test_tokens_with_other_numbers_are_refused(other: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        vocabulary.prove({"7B": TOKENS, "3B": other}, {"7B": 8, "3B": 8}, "here")


def test_a_token_without_a_row_is_refused() -> None:
    with pytest.raises(ModelError, match="'3B' has an output layer of 2 rows, but its tokenizer has token ids up to 2"):
        vocabulary.prove({"7B": TOKENS, "3B": TOKENS}, {"7B": 8, "3B": 2}, "here")


@pytest.mark.parametrize(("numbers", "kept"), [([0, 1, 2], [10.0, 11, 12]), ([0, 2, 3], [10.0, 12, 13])])
def test_what_stands_for_no_token_is_cut_off(numbers: list[int], kept: list[float]) -> None:
    """Rows behind the last token, and between tokens."""
    encoder = Encoder.__new__(Encoder)
    vocab = dict(zip("abc", numbers, strict=True))
    encoder.processor = SimpleNamespace(tokenizer=SimpleNamespace(get_vocab=lambda: vocab))
    assert encoder.real(torch.arange(10.0, 18)[None]).tolist() == [kept]


# ----------------------------------------------------------------------------------------------- runs


def test_one_tokenizer_with_different_padding(toy_config: ToyConfig, tmp_path: Path) -> None:
    """A teacher with 83 rows and a student with 67 for the same 55 tokens are compared over these 55."""
    ladder = families.ladder(
        tmp_path,
        L={"family": "qwen2_5_vl", "rows": 83, "width": 48},
        S={"family": "qwen2_5_vl", "rows": 67, "seed": 1},
    )
    made = plan.make(config(toy_config, ladder, support="vocab", temperature=1.0))
    (record,) = launch([made.config], Store(tmp_path / "runs"), "test", lambda _: None)
    assert record.status == "done", record.error
    assert record.stages[0].mix is None
    mix = record.stages[1].mix
    assert mix is not None
    assert (mix.over, mix.tokenizers, mix.tokens, mix.rows) == ("vocabulary", "one", 55, {"L": 83, "S": 67})
    assert mix_text(mix) == ("qwen2_5_vl models, compared over 55 tokens (rows of the output layers: L 83, S 67)")
    # The loss before the first step, from both models' logits of the 55 tokens.
    batch = [e for _, e in order.batch_at(made.training.splits["train"], 0, 0, 8)]
    logs = {}
    for name in ("L", "S"):
        rung = RungConfig(name=name, model=str(tmp_path / name))
        encoder = encoding.load_encoder(rung)
        scorer = OptionScorer(loading.load_vlm(rung), encoder.letters).eval()
        with torch.inference_mode():
            logs[name] = scorer(encoder(batch), ("vocab",))["vocab"][:, :55].log_softmax(-1)
    kl = (logs["L"].exp() * (logs["L"] - logs["S"])).sum(-1).mean()
    assert record.preflight is not None
    assert math.isclose(record.preflight.losses["distil.student.kd"], float(kl), rel_tol=1e-4)


def test_other_families_and_tokenizers_teach_over_the_options(
    toy: str, toy_config: ToyConfig, tmp_path: Path, cli: Any
) -> None:
    """An InternVL whose letters are two tokens teaches a SmolVLM whose letters are one."""
    ladder = families.ladder(
        tmp_path,
        L={"family": "internvl", "vocabulary": families.pieces, "width": 48},
        S={"family": "smolvlm", "seed": 1},
    )
    (record,) = launch([config(toy_config, ladder)], Store(tmp_path / "runs"), "test", lambda _: None)
    assert record.status == "done", record.error
    mix = record.stages[1].mix
    assert mix is not None
    assert (mix.over, mix.tokenizers) == ("options", "several")
    assert mix.families == {"L": "internvl", "S": "smolvlm"}
    assert record.preflight is not None
    assert record.preflight.losses["distil.student.kd"] > 0
    args = ["plan", "--method", "offline_kd", "--benchmark", "toy", "--plugin", toy, "--ladder", ladder]
    said = cli(*args)
    assert said.code == 0
    assert (
        "models of internvl, smolvlm, compared over the options, each tokenizer with its own spellings of the letters"
        in said.out
    )
    assert cli(*args, "--json").json["stages"][1]["mix"]["tokenizers"] == "several"
    refused = cli(*args, "--set", "settings.support=vocab")
    assert refused.code == 2
    assert "stage 'distil': compares vocabularies, but" in refused.err
    assert refused.err.count("\n") == 1
