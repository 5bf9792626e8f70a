"""Answers that a student writes: sampled, read as options by the rules of `harness.evaluation.choices`, and counted.

With several samples the answer is the option of most texts (self-consistency, arXiv 2203.11171); of equally many, the
one that was read first. A thinking model gets `thinking_tokens` for its thought. One that isn't finished then is closed
there, and the answer is written behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch

from harness.api import Example
from harness.config import EvaluateConfig
from harness.evaluation.choices import read_choice
from harness.models import sequences, shared_prefix
from harness.models.encoding import Batch, Encoder
from harness.models.loading import vocabulary_size
from harness.models.scorer import OptionScorer
from harness.stats.metrics import NO_ANSWER


class Written(NamedTuple):
    """What was written about an example."""

    chosen: int
    """An option, or `NO_ANSWER`: none could be read from any text."""
    scores_k: np.ndarray
    """The log of each option's share of the votes, with one vote divided among all of them."""
    text: str
    """The first text with the chosen option, and its thought."""
    tokens: int
    """Of all texts, with their thoughts."""


class Writer:
    """Lets a model write answers. `seed` is the run's."""

    def __init__(
        self, scorer: OptionScorer, encoder: Encoder, evaluate: EvaluateConfig, seed: int, device: torch.device
    ) -> None:
        self.scorer, self.evaluate, self.seed, self.device = scorer, evaluate, seed, device
        self.tags: tuple[str, str] | None = None
        """The signs that open and close a thought."""
        self.encoder = encoder
        if evaluate.thinking_tokens:
            self.encoder, self.tags = encoder.thinking()
        self.pad: int = encoder.processor.tokenizer.pad_token_id or 0
        self.ends = sequences.ends(scorer.vlm, encoder)

    def __call__(self, examples: Sequence[Example], keys: Sequence[str], batch_size: int) -> list[Written]:
        """An answer to each example. `keys` are what its random numbers depend on, besides the run's seed."""
        found: list[Written] = []
        for start in range(0, len(examples), batch_size):
            some, of_some = examples[start : start + batch_size], keys[start : start + batch_size]
            inputs = {name: tensor.to(self.device) for name, tensor in self.encoder(some).items()}
            samples = [self._texts(inputs, [f"{key}/{n}" for key in of_some]) for n in range(self.evaluate.samples)]
            for row, example in enumerate(some):
                texts = [sample[row][0] for sample in samples]
                found.append(voted(example.options, texts, sum(sample[row][1] for sample in samples)))
        return found

    def _texts(self, inputs: Batch, keys: Sequence[str]) -> list[tuple[str, int]]:
        """A text for each question, and its number of tokens."""
        said, most = self.encoder.said, self.evaluate.max_tokens
        if self.tags is None:
            answers = self._sampled(inputs, keys, most, self.ends)
            return [(said(ids), len(ids)) for ids in answers]
        opened, closed = self.tags
        close = self.encoder.plain_ids(closed)
        stops = self.ends | set(close if len(close) == 1 else [])
        raw = self._sampled(inputs, [f"{key}/thought" for key in keys], self.evaluate.thinking_tokens, stops)
        thoughts = [said([token for token in ids if [token] != close]).partition(closed)[0].strip() for ids in raw]
        ending = self.encoder.plain_ids(f"\n{closed}\n\n")
        behind = [[*self.encoder.response(thought)[:-1], *ending] for thought in thoughts]
        ids_bt, mask_bt = sequences.padded(behind, self.device)
        family = str(self.scorer.vlm.config.model_type)  # type: ignore[union-attr]
        inputs = sequences.behind_questions(inputs, ids_bt, mask_bt, self.pad, family)
        del inputs[sequences.REPLY]
        answers = self._sampled(inputs, keys, most, self.ends)
        return [
            (f"{opened}{thought}{closed}{said(ids)}", len(first) + len(ids))
            for thought, first, ids in zip(thoughts, raw, answers, strict=True)
        ]

    def _sampled(self, inputs: Batch, keys: Sequence[str], most: int, ends: Collection[int]) -> list[list[int]]:
        lengths = inputs["attention_mask"].sum(1).tolist()
        draws = [
            torch.rand(most, generator=sequences.generator(f"{self.seed}/{key}"), dtype=torch.float64) for key in keys
        ]
        ids_bt, mask_bt = sequences.sampled(
            self.scorer, shared_prefix.truncated(inputs, lengths, self.pad), torch.stack(draws).to(self.device),
            self.evaluate.temperature, 1.0, ends, self.encoder.absent(vocabulary_size(self.scorer.vlm.config)),
        )  # fmt: skip
        return [ids[there].tolist() for ids, there in zip(ids_bt, mask_bt, strict=True)]


def voted(options: Sequence[str], texts: Sequence[str], tokens: int) -> Written:
    """The answer of these texts about one example."""
    read = [read_choice(text, options) for text in texts]
    votes_k = np.array([read.count(k) for k in range(len(options))], dtype=np.float64)
    chosen = NO_ANSWER
    if votes_k.any():
        chosen = next(k for k in read if k != NO_ANSWER and votes_k[k] == votes_k.max())
        votes_k[chosen] += 0.5  # of equally many votes, the largest share
    votes_k += 1 / len(options)
    return Written(chosen, np.log(votes_k / votes_k.sum()), texts[read.index(chosen)], tokens)
