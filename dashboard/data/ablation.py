"""The ablations of a store as plain frames: differences to the full method, their intervals and p, costs."""

from __future__ import annotations

import pandas as pd

from harness.errors import StoreError, UserError
from harness.experiments.ablation import Ablation, Result, load
from harness.report.ablation import SURE
from harness.store import Store

COLUMNS = ["line", "part", "value", "low", "high", "own", "own low", "own high", "p", "holm", "verdict", "TFLOP",
           "TFLOP change", "forwards", "forwards change", "seeds", "note", "changed"]  # fmt: skip
SURELY, UNSURE, FULL, UNTESTED = "told apart (Holm)", "not told apart", "the full method", "not tested"


def names(store: Store) -> list[str]:
    """The names of the ablations in a store: its JSON files that are one, sound or not."""
    found = []
    for file in (name for name in store.backend.texts() if name.endswith(".json") and "/" not in name):
        try:
            load(store, file.removesuffix(".json"))
        except UserError:
            if '"lines"' not in _head(store, file):
                continue  # something else
        found.append(file.removesuffix(".json"))
    return found


def _head(store: Store, name: str) -> str:
    try:
        return store.backend.read(name)[:100_000].decode("utf-8", "replace")
    except OSError as error:
        raise StoreError(f"{name} can't be read: {error.strerror or error}") from None


def figures(ablation: Ablation, benchmark: str) -> list[str]:
    """What the table of a benchmark has figures of, as `split/metric`."""
    return list(dict.fromkeys(name for result in ablation.tables[benchmark] for name in result.figures))


def frame(ablation: Ablation, benchmark: str, figure: str) -> pd.DataFrame:
    """A line each (`COLUMNS`): the figure and its difference to the full method in points, p, Holm's p, costs."""
    rows = [_row(result, figure) for result in ablation.tables[benchmark]]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(result: Result, figure: str) -> tuple[object, ...]:
    found = result.figures.get(figure)
    apart = found.difference if found else None
    own = found.value if found else None
    verdict = UNTESTED
    if result.part == "full":
        verdict = FULL
    elif found is not None and found.p_holm is not None:
        verdict = SURELY if found.p_holm < SURE else UNSURE
    return (
        result.label,
        result.part,
        *((None, None, None) if apart is None else _points(apart.value, apart.low, apart.high)),
        *((None, None, None) if own is None else _points(own.value, own.low, own.high)),
        found.p if found else None,
        found.p_holm if found else None,
        verdict,
        result.train_tflops,
        result.train_tflops_change,
        result.forwards,
        result.forwards_change,
        len(result.seeds),
        result.note,
        ", ".join(f"{key} = {value}" for key, value in result.changed.items()),
    )


def _points(*numbers: float | None) -> tuple[float | None, ...]:
    return tuple(None if number is None else 100 * number for number in numbers)


def in_words(frame_: pd.DataFrame, figure: str) -> str:
    """What the corrected p values tell of the ablations, in one sentence."""
    tried = frame_[(frame_["part"] == "ablation") & frame_["holm"].notna()]
    sure = tried[tried["verdict"] == SURELY]
    if not len(tried):
        return "No ablation has been run on seeds that the full method has too."
    if not len(sure):
        return f"None of the {len(tried)} ablations is told apart from the full method in {figure} (Holm, {SURE})."
    told = ", ".join(f"{row.line} ({row.value:+.1f})" for row in sure.itertuples(index=False))
    return f"Told apart from the full method in {figure} (Holm, {SURE}): {told}; {len(tried) - len(sure)} are not."
