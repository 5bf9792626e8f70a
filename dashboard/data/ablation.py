"""The ablations of a store as data frames: differences to the full method with intervals and p values, and costs."""

from __future__ import annotations

import pandas as pd

from harness.errors import StoreError, UserError
from harness.leaderboard.ablation import Ablation, AblationResult, load
from harness.report.ablation import SURE
from harness.store import Store

COLUMNS = ["line", "part", "value", "low", "high", "own", "own low", "own high", "p", "holm", "verdict", "TFLOP",
           "TFLOP change", "forwards", "forwards change", "seeds", "note", "changed"]  # fmt: skip
SURELY, UNSURE, FULL, UNTESTED = "significant (Holm)", "not significant", "the full method", "not tested"


def names(store: Store) -> list[str]:
    """The names of the ablations in a store, including those whose file is damaged."""
    found = []
    for file in (name for name in store.backend.texts() if name.endswith(".json") and "/" not in name):
        try:
            load(store, file.removesuffix(".json"))
        except UserError:
            if '"lines"' not in _head(store, file):
                continue  # another JSON file
        found.append(file.removesuffix(".json"))
    return found


def _head(store: Store, name: str) -> str:
    try:
        return store.backend.read(name)[:100_000].decode("utf-8", "replace")
    except OSError as error:
        raise StoreError(f"{name} can't be read: {error.strerror or error}") from None


def figures(ablation: Ablation, benchmark: str) -> list[str]:
    """The metrics in the table of a benchmark, as `split/metric`."""
    return list(dict.fromkeys(name for result in ablation.tables[benchmark] for name in result.figures))


def frame(ablation: Ablation, benchmark: str, figure: str) -> pd.DataFrame:
    """One row per line of the ablation (`COLUMNS`): the metric (own, per cent), its difference to the full method
    (value, percentage points), p, Holm's p, costs."""
    rows = [_row(result, figure) for result in ablation.tables[benchmark]]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(result: AblationResult, figure: str) -> tuple[object, ...]:
    found = result.figures.get(figure)
    difference = found.difference if found else None
    own = found.value if found else None
    verdict = UNTESTED
    if result.part == "full":
        verdict = FULL
    elif found is not None and found.p_holm is not None:
        verdict = SURELY if found.p_holm < SURE else UNSURE
    return (
        result.label,
        result.part,
        *((None, None, None) if difference is None else _points(difference.value, difference.low, difference.high)),
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
    """Which ablations differ significantly, in one sentence."""
    tried = frame_[(frame_["part"] == "ablation") & frame_["holm"].notna()]
    sure = tried[tried["verdict"] == SURELY]
    if not len(tried):
        return "No ablation shares a seed with the full method, so none can be tested."
    if not len(sure):
        return (
            f"None of {len(tried)} ablations differs significantly from the full method in {figure} (Holm, p < {SURE})."
        )
    listed = ", ".join(f"{row.line} ({row.value:+.1f})" for row in sure.itertuples(index=False))
    others = len(tried) - len(sure)
    different = f"Significantly different from the full method in {figure} (Holm, p < {SURE}): {listed}."
    return f"{different} Not significant: {others}."
