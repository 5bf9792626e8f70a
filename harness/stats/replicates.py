"""What statistics need from predictions, small enough to store for every run: answers and bootstrap replicates.

The answers of a run are one small number per example, in an order that all runs on the same examples share. Its
replicates are 2,000 values of a metric, resampled over groups, with the same drawn groups for all these runs (see
`harness.stats.bootstrap`): intervals, differences, ranks and tiers are computed from them jointly, without examples.

A replicate of accuracy is stored as the count of right answers, exactly. One of macro-F1 is stored in single
precision; it is rounded as soon as it is computed, so that a ranking reads the same before and after `compact`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import ConfigError, DataError, near
from harness.stats import bootstrap
from harness.stats.bootstrap import METRICS, RESAMPLES, category_of
from harness.stats.metrics import NO_ANSWER, Floats, Ints, accuracy_of, macro_f1_of, micro_f1_of, seen_labels

STORED_METRICS = ("accuracy", "macro_f1")
"""The metrics whose replicates the catalogue stores."""

_COLUMNS = ("id", "group", "category", "gold")
_BLOCK = 1 << 22
"""Numbers in memory at a time while resampling: limits the memory to some 100 MB."""


@dataclass(frozen=True)
class Examples:
    """The examples that runs answered, in the order of the first such run."""

    key: str
    """Hash of ids, groups, categories and golds, independent of their order."""
    table: pa.Table
    """Columns id, group, category, gold."""

    @cached_property
    def gold_n(self) -> Ints:
        return np.asarray(self.table["gold"].to_numpy(), dtype=np.int64)

    @cached_property
    def grouped(self) -> tuple[Ints, int]:
        """The number of each example's group (N,), and how many groups there are."""
        return bootstrap.group_numbers(self.table["group"].to_numpy(zero_copy_only=False))

    @property
    def groups(self) -> int:
        return self.grouped[1]

    def category(self, name: str) -> NDArray[np.bool_]:
        """Which examples (N,) belong to a category. Raises `ConfigError` for an unknown one."""
        inside = np.asarray(pc.equal(self.table["category"], name).to_numpy(zero_copy_only=False), dtype=bool)
        if not inside.any():
            known = (f"accuracy/{found}" for found in self.table["category"].unique().to_pylist())
            asked = f"accuracy/{name}"
            raise ConfigError(f"unknown metric {asked!r}; {near(asked, [*METRICS, *known])}")
        return inside

    @cached_property
    def examples_per_replicate(self) -> Ints:
        """How many examples each resample drew (RESAMPLES,)."""
        group_n, groups = self.grouped
        sizes_c = np.bincount(group_n, minlength=groups).astype(np.float32)
        counts_nc = drawn_counts(groups)
        step = max(1, _BLOCK // groups)
        parts = [counts_nc[at : at + step].astype(np.float32) @ sizes_c for at in range(0, RESAMPLES, step)]
        return np.rint(np.concatenate(parts)).astype(np.int64)


class ExampleOrder:
    """Brings the answers of many runs into one order per example set, that of the first run; stores each set once.

    Groups are numbered in this order, so it determines which of them a resample draws. Runs are written in the order of
    their data set: the replicates don't depend on which run comes first.
    """

    def __init__(self, known: Iterable[Examples] = ()) -> None:
        self.sets = {examples.key: examples for examples in known}
        self._orders: dict[bytes, tuple[str, Ints | None]] = {}

    def take(self, predictions: pa.Table) -> tuple[str, NDArray[np.int16]]:
        """The key of the examples of one split's predictions, and the choices (N,) in the order of that example set.

        Raises `DataError` for an example that is predicted twice.
        """
        asked = predictions.select(_COLUMNS).combine_chunks()
        order = _digest(asked)
        if order not in self._orders:
            self._orders[order] = self._learn(asked)
        key, at_n = self._orders[order]
        chosen_n = predictions["chosen"].to_numpy()
        return key, np.asarray(chosen_n if at_n is None else chosen_n[at_n], dtype=np.int16)

    def _learn(self, asked: pa.Table) -> tuple[str, Ints | None]:
        by_id = asked.take(pc.sort_indices(asked["id"])).combine_chunks()
        ids = by_id["id"].to_numpy(zero_copy_only=False)
        if len(twice := ids[1:][ids[1:] == ids[:-1]]):
            raise DataError(f"example {twice[0]!r} is predicted twice: expected one prediction per example")
        key = _digest(by_id).hex()
        known = self.sets.setdefault(key, Examples(key, asked))
        if known.table is asked or known.table["id"].equals(asked["id"]):
            return key, None
        at = pc.index_in(known.table["id"], value_set=asked["id"].combine_chunks())
        return key, np.asarray(at.to_numpy(), dtype=np.int64)


def _digest(table: pa.Table) -> bytes:
    digest = hashlib.blake2b(digest_size=12)
    for batch in table.to_batches():
        digest.update(batch.serialize())
    return digest.digest()


# -------------------------------------------------------------------------------------- the replicates


@dataclass(frozen=True)
class Replicates:
    """A metric of R runs on the same examples."""

    points_r: Floats
    replicates_rn: Floats | None
    """Resampled over groups; None if all examples are in one group."""


def replicate(examples: Examples, chosen_rn: NDArray[np.int16], labels: int | None, metric: str) -> Replicates:
    """A metric of R runs: values and replicates, equal to those of `inference.summarise` with seed 0 (macro-F1: to
    1e-7).

    `chosen_rn` (R, N) are the runs' choices in the examples' order, `labels` the number of options (None: they
    differ by example). Raises `ConfigError` for an unknown metric or category.
    """
    return replicate_all(examples, chosen_rn, labels, [metric])[metric]


def replicate_all(
    examples: Examples, chosen_rn: NDArray[np.int16], labels: int | None, metrics: Sequence[str]
) -> Mapping[str, Replicates]:
    """Several metrics of R runs at once, see `replicate`; metrics over all examples share the computation."""
    result: dict[str, Replicates] = {}
    whole = [name for name in metrics if name in METRICS]
    if whole:
        result |= _replicated(examples.grouped, examples.gold_n, chosen_rn, labels, whole)
    for name in metrics:
        if (category := category_of(name)) is not None:
            inside = examples.category(category)
            group_n, groups = examples.grouped
            choice_rn = np.where(chosen_rn[:, inside] == examples.gold_n[inside], 0, NO_ANSWER).astype(np.int16)
            golds = np.zeros(choice_rn.shape[1], dtype=np.int64)
            result[name] = _replicated((group_n[inside], groups), golds, choice_rn, 1, ["accuracy"])["accuracy"]
    return result


def _replicated(
    grouped: tuple[Ints, int], gold_n: Ints, chosen_rn: NDArray[np.int16], labels: int | None, metrics: Sequence[str]
) -> dict[str, Replicates]:
    group_n, groups = grouped
    runs = len(chosen_rn)
    count = labels or int(max(gold_n.max(), chosen_rn.max())) + 1
    if gold_n.max() >= count or chosen_rn.max() >= count:
        raise DataError(f"an answer is outside the {count} options of the benchmark: the data changed")
    golds_ck = np.bincount(group_n * count + gold_n, minlength=groups * count).reshape(groups, count)
    # Columns: golds by label; then for each run hits by label and choices by label.
    units = np.empty((groups, count + runs * 2 * count), dtype=np.float32)
    units[:, :count] = golds_ck
    for r, choice_n in enumerate(chosen_rn):
        answered = choice_n != NO_ANSWER
        flat_n = group_n[answered] * count + choice_n[answered]
        hits = np.bincount(flat_n[(choice_n == gold_n)[answered]], minlength=groups * count)
        at = count + r * 2 * count
        units[:, at : at + count] = hits.reshape(groups, count)
        units[:, at + count : at + 2 * count] = np.bincount(flat_n, minlength=groups * count).reshape(groups, count)

    def tallies(sums: Floats) -> Floats:
        """Sums (b, columns) as (b, R, 3, K)."""
        of_runs = sums[:, count:].reshape(len(sums), runs, 2, count)
        golds = np.broadcast_to(sums[:, None, None, :count], (len(sums), runs, 1, count))
        return np.concatenate([of_runs[:, :, :1], golds, of_runs[:, :, 1:]], axis=2)

    total_r3k = tallies(units.sum(0, dtype=np.float64)[None])[0]
    seen_rk = seen_labels(total_r3k) if labels is None else None
    formulas: dict[str, Callable[[Floats], Floats]] = {
        "accuracy": accuracy_of,
        "micro_f1": micro_f1_of,
        "macro_f1": lambda t: macro_f1_of(t, seen_rk),
    }
    points = {name: formulas[name](total_r3k) for name in metrics}
    if len(np.unique(group_n)) < 2:
        return {name: Replicates(points[name], None) for name in metrics}
    values = {name: np.empty((runs, RESAMPLES)) for name in metrics}
    counts_nc = drawn_counts(groups)
    step = max(1, _BLOCK // max(groups, units.shape[1]))
    for start in range(0, RESAMPLES, step):
        # Integers below 2**24: single precision is exact, and twice as fast.
        sums = counts_nc[start : start + step].astype(np.float32) @ units
        of_block = tallies(sums.astype(np.float64))
        for name in metrics:
            values[name][:, start : start + step] = formulas[name](of_block).T
    return {name: Replicates(points[name], as_stored(name, values[name])) for name in metrics}


@lru_cache(maxsize=2)
def drawn_counts(groups: int) -> NDArray[np.uint8]:
    """How often each resample draws each group: (RESAMPLES, C), the draws of `bootstrap.resampled_sums` with seed 0."""
    counts = np.empty((RESAMPLES, groups), dtype=np.uint8)  # the mean count is 1
    rng = np.random.default_rng(0)
    step = max(1, _BLOCK // groups)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = rng.integers(0, groups, size=(rows, groups))
        drawn += np.arange(rows)[:, None] * groups
        counts[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)
    return counts


def as_stored(metric: str, values: Floats) -> Floats:
    """The replicates as the catalogue returns them: accuracy exactly, all others in single precision."""
    return values if metric == "accuracy" else values.astype(np.float32).astype(np.float64)


# ------------------------------------------------------------------------------- as columns of a catalogue


def column_type(metric: str) -> pa.DataType:
    """The type of a metric's replicates in the catalogue: lists of RESAMPLES numbers, integers for accuracy."""
    number = pa.int32() if metric == "accuracy" else pa.float32()
    return pa.list_(pa.field("element", number, nullable=False), RESAMPLES)


def encode(metric: str, replicates_n: Floats, examples_per_replicate: Ints) -> NDArray[np.generic]:
    """A run's replicates as they are stored: for accuracy the counts of right answers, which are exact."""
    return (
        np.rint(replicates_n * examples_per_replicate).astype(np.int32)
        if metric == "accuracy"
        else replicates_n.astype(np.float32)
    )


def to_column(metric: str, rows: Sequence[NDArray[np.generic] | None]) -> pa.Array:
    """The stored replicates of many runs as one column; null for a run that has none."""
    kind = column_type(metric)
    values_rn = np.zeros((len(rows), RESAMPLES), dtype=kind.value_type.to_pandas_dtype())
    for r, replicates_n in enumerate(rows):
        if replicates_n is not None:
            values_rn[r] = replicates_n
    absent = pa.array([replicates_n is None for replicates_n in rows], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(values_rn.ravel()), type=kind, mask=absent)


def from_column(metric: str, column: pa.ChunkedArray, examples_per_replicate: Ints) -> Floats:
    """The replicates (R, n) of the R runs of a column without nulls."""
    stored_rn = column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)
    return np.asarray(stored_rn / examples_per_replicate if metric == "accuracy" else stored_rn.astype(np.float64))


def pack_choices(chosen_n: NDArray[np.int16]) -> bytes:
    """Choices as one byte each, or two if there are more options than one byte allows."""
    wide = chosen_n.size and int(chosen_n.max()) > 127
    return (chosen_n.astype("<i2") if wide else chosen_n.astype("i1")).tobytes()


def unpack_choices(packed: Sequence[bytes], examples: int) -> NDArray[np.int16]:
    """The choices (R, N) of R runs from their bytes."""
    rows = [np.frombuffer(one, dtype="i1" if len(one) == examples else "<i2").astype(np.int16) for one in packed]
    return np.stack(rows)
