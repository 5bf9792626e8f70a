"""The answers of several runs to the same examples: joined, filtered, sorted, split into pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard.data.run import confidences
from harness.errors import DataError
from harness.stats import calibration

SHOW = ("all", "some run is wrong", "every run is wrong", "the runs disagree")
ORDERS = ("as in the benchmark", "surest first", "least sure first")
COMMON = ("group", "category", "gold")


class ExampleAnswer(NamedTuple):
    """A run's answer to an example. `probabilities` (K,): one per option, empty if the run gave no scores.

    `tokens`: how many its student wrote for it; None: it wrote nothing.
    """

    chosen: int
    text: str | None
    probabilities: Sequence[float]
    tokens: int | None = None


def together(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Joins the predictions of several runs: one row per example, in the order of the first run.

    Columns: id, group, category, gold, and for run number K the row in its frame (`at K`), the chosen option
    (`chosen K`) and the confidence in per cent (`sure K`, NaN without scores).
    Raises `DataError` if the runs answered different examples.
    """
    first = next(iter(frames))
    joined = frames[first][["id", *COMMON]].reset_index(drop=True)
    for number, (run_id, frame) in enumerate(frames.items()):
        places = pd.Series(np.arange(len(frame)), index=frame["id"])
        if not places.index.is_unique or set(places.index) != set(joined["id"]):
            raise DataError(
                f"runs {first} and {run_id} answered different examples: choose runs on the same benchmark data"
            )
        at_n = places.loc[joined["id"]].to_numpy()
        joined[f"at {number}"] = at_n
        joined[f"chosen {number}"] = frame["chosen"].to_numpy()[at_n]
        joined[f"sure {number}"] = 100 * confidences(frame)[at_n]
    return joined


def runs_in(joined: pd.DataFrame) -> int:
    """The number of joined runs."""
    return sum(name.startswith("at ") for name in joined.columns)


def right(joined: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each run's answer is correct: (N, R) booleans."""
    gold_n = joined["gold"].to_numpy()
    return np.stack([joined[f"chosen {k}"].to_numpy() == gold_n for k in range(runs_in(joined))], axis=1)


def disagree(joined: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether the runs chose different options: (N,) booleans."""
    chosen_nr = np.stack([joined[f"chosen {k}"].to_numpy() for k in range(runs_in(joined))], axis=1)
    return np.asarray((chosen_nr != chosen_nr[:, :1]).any(1))


def sift(
    joined: pd.DataFrame,
    show: str = SHOW[0],
    categories: Sequence[str] = (),
    sure: tuple[float, float] = (0.0, 100.0),
    words: Sequence[str] = (),
    order: str = ORDERS[0],
) -> pd.DataFrame:
    """The matching examples, sorted. `show` and `order`: one of `SHOW` and `ORDERS`. `categories`: empty for all.
    `sure`: bounds of the first run's confidence in per cent. `words`: full ids, or parts that the id must contain."""
    right_nr = right(joined)
    masks = (np.ones(len(joined), dtype=bool), ~right_nr.all(1), ~right_nr.any(1), disagree(joined))
    keep_n = masks[SHOW.index(show)]
    if categories:
        keep_n &= joined["category"].isin(list(categories)).to_numpy()
    for word in words:
        named_n = (joined["id"] == word).to_numpy()
        keep_n &= named_n if named_n.any() else joined["id"].str.contains(word, case=False, regex=False).to_numpy()
    if sure != (0.0, 100.0):  # leaves out answers without scores
        sure_n = joined["sure 0"].to_numpy()
        keep_n &= (sure_n >= sure[0]) & (sure_n <= sure[1])
    found: pd.DataFrame = joined.loc[np.asarray(keep_n, dtype=bool)]
    if order != ORDERS[0]:
        found = found.sort_values("sure 0", ascending=order == ORDERS[2], kind="stable")
    return found


def page(found: pd.DataFrame, number: int, size: int) -> pd.DataFrame:
    """Page `number`, counted from 1; the last page if there are fewer."""
    number = max(1, min(number, pages(found, size)))
    return found.iloc[(number - 1) * size : number * size]


def pages(found: pd.DataFrame, size: int) -> int:
    """The number of pages, at least 1."""
    return max(1, -(-len(found) // size))


def answer(frame: pd.DataFrame, at: int) -> ExampleAnswer:
    """The answer in row `at` of a run's predictions."""
    row = frame.iloc[at]
    scores = row["scores"]
    probabilities = () if scores is None or not len(scores) else calibration.probabilities([scores])[0].tolist()
    text = row["text"] if isinstance(row["text"], str) else None
    tokens = row.get("tokens")
    return ExampleAnswer(int(row["chosen"]), text, probabilities, None if pd.isna(tokens) else int(tokens))
