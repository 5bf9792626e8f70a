"""The ablations of a store as data frames: differences to the full method with intervals and p values, and costs."""

from __future__ import annotations

import pandas as pd

from harness.errors import StoreError, UserError
from harness.leaderboard import inference, seed_results
from harness.leaderboard.ablation import Ablation, AblationResult, load
from harness.report.ablation import SURE
from harness.stats.inference import Difference
from harness.store import Store

COLUMNS = ["line", "part", "value", "low", "high", "own", "own low", "own high", "p", "holm", "verdict", "TFLOP",
           "TFLOP change", "forwards", "forwards change", "seeds", "note", "changed", "group"]  # fmt: skip
PARTS = "parts"
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
    (value, percentage points), p, Holm's p, costs; `group`: see `group`."""
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
        ", ".join(f"{key} = {_value(value)}" for key, value in result.changed.items()),
        group(result),
    )


def _value(value: object) -> str:
    """A setting's value as in TOML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def group(result: AblationResult) -> str:
    """What a line is among the ablations: `PARTS` if its name begins with a minus or it only sets switches to false,
    else the names of the settings that it changes, which its variants have in common."""
    if result.label.startswith("-") or all(value is False for value in result.changed.values()):
        return PARTS
    return ", ".join(result.changed)


def difference(
    store: Store, ablation: Ablation, benchmark: str, figure: str, first: str, second: str
) -> Difference | None:
    """The first line minus the second, paired by seed and example; None: they share no seed. Raises `StoreError`."""
    split, metric = figure.split("/", 1)
    done = {result.label: result.seeds for result in ablation.tables[benchmark]}
    lines = {line.label: line for line in ablation.lines}
    runs = [
        {seed: run_id for seed, run_id in lines[label].runs.get(benchmark, {}).items() if seed in done[label]}
        for label in (first, second)
    ]
    a, b = seed_results.of_runs(store, runs, split)
    return inference.difference(a, b, metric)


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
