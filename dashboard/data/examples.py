"""The answers of a few runs to the same examples, side by side: joined, filtered, put in order, cut into pages."""

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
    """What a run said to an example. `probabilities` (K,): one an option, none where it gave no scores."""

    chosen: int
    text: str | None
    probabilities: Sequence[float]


def together(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A line an example in the order of the first run: id, group, category, gold, and by run its place in the run's
    frame (`at K`), what it chose (`chosen K`), how sure it was (`sure K`, NaN without scores), for run number K.

    Raises `DataError` where the runs were asked other examples.
    """
    first = next(iter(frames))
    whole = frames[first][["id", *COMMON]].reset_index(drop=True)
    for number, (run_id, frame) in enumerate(frames.items()):
        places = pd.Series(np.arange(len(frame)), index=frame["id"])
        if not places.index.is_unique or set(places.index) != set(whole["id"]):
            raise DataError(f"runs {first} and {run_id} were asked other examples: choose runs of one benchmark")
        at_n = places.loc[whole["id"]].to_numpy()
        whole[f"at {number}"] = at_n
        whole[f"chosen {number}"] = frame["chosen"].to_numpy()[at_n]
        whole[f"sure {number}"] = 100 * confidences(frame)[at_n]
    return whole


def runs_in(whole: pd.DataFrame) -> int:
    """How many runs were joined."""
    return sum(name.startswith("at ") for name in whole.columns)


def right(whole: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each run is right: (N, R) booleans."""
    gold_n = whole["gold"].to_numpy()
    return np.stack([whole[f"chosen {k}"].to_numpy() == gold_n for k in range(runs_in(whole))], axis=1)


def disagree(whole: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether the runs chose different options: (N,) booleans."""
    chosen_nr = np.stack([whole[f"chosen {k}"].to_numpy() for k in range(runs_in(whole))], axis=1)
    return np.asarray((chosen_nr != chosen_nr[:, :1]).any(1))


def sift(
    whole: pd.DataFrame,
    show: str = SHOW[0],
    categories: Sequence[str] = (),
    sure: tuple[float, float] = (0.0, 100.0),
    words: Sequence[str] = (),
    order: str = ORDERS[0],
) -> pd.DataFrame:
    """The lines that were asked for, in order. `categories` empty: all. `sure`: bounds of the first run's confidence
    in per cent; `words`: the id, or parts of it that it must all have. `show` and `order` as in `SHOW` and `ORDERS`."""
    right_nr = right(whole)
    kept = (np.ones(len(whole), dtype=bool), ~right_nr.all(1), ~right_nr.any(1), disagree(whole))
    keep_n = kept[SHOW.index(show)]
    if categories:
        keep_n &= whole["category"].isin(list(categories)).to_numpy()
    for word in words:
        named_n = (whole["id"] == word).to_numpy()
        keep_n &= named_n if named_n.any() else whole["id"].str.contains(word, case=False, regex=False).to_numpy()
    if sure != (0.0, 100.0):  # an answer without scores lies within no bounds
        sure_n = whole["sure 0"].to_numpy()
        keep_n &= (sure_n >= sure[0]) & (sure_n <= sure[1])
    found: pd.DataFrame = whole.loc[np.asarray(keep_n, dtype=bool)]
    if order != ORDERS[0]:
        found = found.sort_values("sure 0", ascending=order == ORDERS[2], kind="stable")
    return found


def page(found: pd.DataFrame, number: int, size: int) -> pd.DataFrame:
    """Page `number`, from 1; the last one where there are fewer."""
    number = max(1, min(number, pages(found, size)))
    return found.iloc[(number - 1) * size : number * size]


def pages(found: pd.DataFrame, size: int) -> int:
    """How many pages there are; one where there is nothing."""
    return max(1, -(-len(found) // size))


def answer(frame: pd.DataFrame, at: int) -> ExampleAnswer:
    """The answer at a place of a run's predictions."""
    row = frame.iloc[at]
    scores = row["scores"]
    probabilities = () if scores is None or not len(scores) else calibration.probabilities([scores])[0].tolist()
    return ExampleAnswer(int(row["chosen"]), row["text"] if isinstance(row["text"], str) else None, probabilities)
