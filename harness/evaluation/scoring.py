"""Figures of predictions: the harness's metrics and the benchmark's protocols. It imports neither torch nor ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from harness.api import Answer, Example
from harness.data import leakage
from harness.data.dataset import Dataset
from harness.record import Data, Interval
from harness.stats import calibration
from harness.stats.inference import summarise
from harness.stats.metrics import NO_ANSWER

if TYPE_CHECKING:
    import pandas as pd

ORIGINALS = frozenset(("official", "lmms_eval", "lmms_eval_intern", "vlmevalkit"))
"""Protocols of a benchmark's authors, or of others that ask its questions in the authors' words."""
LETTER = "_letter"
WRITTEN = "tokens"
"""The column that only predictions have whose texts the run's student wrote."""


def figures_of(dataset: Dataset, frame: pd.DataFrame, resamples: int) -> dict[str, dict[str, Interval]]:
    """The figures of each split from its predictions: the harness's metrics and the benchmark's protocols.

    Besides accuracy and F1: `calibration.FIGURES`, `parse_failures` (the fraction that couldn't be read as an
    option: 0 for option logits) and `chance` (the expected accuracy of a uniform guess); `answer_tokens`, the mean
    number of tokens of an answer, where the student wrote. If a protocol's value is undefined, there is no figure.
    """
    result: dict[str, dict[str, Interval]] = {}
    for split in frame["split"].unique():
        part = frame[frame["split"] == split]
        figures = dict(summarise(part, dataset.options, resamples))
        figures |= calibration.figures(part, dataset.options, resamples)
        examples = {e.id: e for e in dataset.splits[split]}
        figures["parse_failures"] = Interval(value=float((part["chosen"] == NO_ANSWER).mean()))
        figures["chance"] = Interval(value=fmean(1 / len(examples[id_].options) for id_ in part["id"]))
        texts = part["text"]
        if WRITTEN in part:  # protocols get the option that was read: the text answers the harness's prompt
            figures["answer_tokens"] = Interval(value=float(part[WRITTEN].mean()))
            texts = texts.where(part["chosen"] == NO_ANSWER)
        given = [
            (examples[id_], answer(examples[id_], int(chosen), text))
            for id_, chosen, text in zip(part["id"], part["chosen"], texts, strict=True)
        ]
        for protocol, scorer in dataset.benchmark.protocols().items():
            asked = [a for e, a in given if dataset.benchmark.asked(protocol, e)]
            for name, value in (scorer(asked) if asked else {}).items():
                if value is not None:
                    figures[f"{protocol}:{name}"] = Interval(value=value)
        result[split] = figures
    return result


def by_letter(figures: Mapping[str, Interval]) -> dict[str, Interval]:
    """The figures of a model that was asked for a letter: those of authors' protocols say so in their names.

    `official:f1` becomes `official_letter:f1`: the scoring is the authors' own, but the prompt and the answer aren't.
    """
    return {f"{p}{LETTER}:{name}" if p in ORIGINALS else key: v for key, p, name, v in _parts(figures)}


def named_as(recorded: Iterable[str], figures: Mapping[str, Interval]) -> dict[str, Interval]:
    """The figures under the names that a record has for them: a control has both."""
    protocols = {name.partition(":")[0] for name in recorded}
    lettered = any(name.removesuffix(LETTER) in ORIGINALS for name in protocols if name.endswith(LETTER))
    plain = not lettered or not protocols.isdisjoint(ORIGINALS)
    return (dict(figures) if plain else {}) | (by_letter(figures) if lettered else {})


def _parts(figures: Mapping[str, Interval]) -> Iterator[tuple[str, str, str, Interval]]:
    for key, value in figures.items():
        protocol, _, name = key.partition(":")
        yield key, protocol, name, value


def answer(example: Example, chosen: int, text: str | None) -> Answer:
    """The answer as protocols see it. Without a text of its own, its text is the chosen option."""
    e = example
    said = text if isinstance(text, str) else e.options[chosen] if chosen != NO_ANSWER else ""
    return Answer(e.id, e.group, e.category, e.options, e.known_gold, chosen, said, e.extra)


def data_record(dataset: Dataset, published: Dataset | None = None) -> Data:
    """The description of the data for a record; `published` is the data with its own images, to check for leaks."""
    return Data(
        revision=dataset.benchmark.revision,
        fingerprint=dataset.fingerprint,
        sizes=dataset.sizes,
        options=list(dataset.options) if dataset.options else None,
        skipped={str(split): count for split, count in dataset.skipped.items()},
        leaks=None if published is None else leakage.exact(published),
    )
