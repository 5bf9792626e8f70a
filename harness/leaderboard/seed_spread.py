"""How much seeds differ on the same data: the prior of every interval and p, see `harness.stats.moderated`.

It is taken from all finished runs of a store on the same data and split, whatever a table shows of them. So two rows
have the same interval and p in every table, filtered or not, and wherever they are compared. The figures are those of
the runs' records: no predictions are read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.stats import moderated
from harness.stats.metrics import Floats
from harness.stats.moderated import Prior
from harness.store.catalog import View
from harness.store.index import LIGHT
from harness.store.manifest import DataKey

COLUMNS = (*LIGHT, "metrics")
_COLUMNS = ("run_id", "status", "kind", "benchmark", "revision", "fingerprint", "row", "seed", "finished")


class SeedSpread:
    """The priors of the rows on the same data and split, by metric; computed when they are asked for."""

    def __init__(self, figures: Callable[[str], Floats]) -> None:
        self._figures = figures
        """A metric of all rows by seed (K, S), NaN where a row lacks the seed."""
        self._rows: dict[str, Prior | None] = {}
        self._pairs: dict[str, Prior | None] = {}

    def rows(self, metric: str) -> Prior | None:
        """Of a row's mean over seeds. None: no row has two seeds."""
        if metric not in self._rows:
            self._rows[metric] = moderated.of_rows(self._figures(metric))
        return self._rows[metric]

    def pairs(self, metric: str) -> Prior | None:
        """Of the difference of two rows, paired by seed. None: no two rows share two seeds."""
        if metric not in self._pairs:
            self._pairs[metric] = moderated.of_pairs(self._figures(metric))
        return self._pairs[metric]


class Spreads:
    """The `SeedSpread` of each set of data in a store, on one split. The view must have been opened with `COLUMNS`."""

    def __init__(self, view: View, split: str) -> None:
        self._view, self._split = view, split
        self._found: dict[DataKey, SeedSpread] = {}

    def of(self, data_key: DataKey) -> SeedSpread:
        if data_key not in self._found:
            self._found[data_key] = SeedSpread(lru_cache(maxsize=None)(lambda metric: self._matrix(data_key, metric)))
        return self._found[data_key]

    @cached_property
    def _lines(self) -> pa.Table:
        """One line per figure of a finished run on the split, the runs in the order in which they finished."""
        lines = self._view.lines((*_COLUMNS, "metrics"))
        lines = lines.filter(pc.and_(pc.equal(lines["status"], "done"), pc.equal(lines["kind"], "run")))
        lines = lines.sort_by([("finished", "ascending"), ("run_id", "ascending")])
        metrics = lines["metrics"].combine_chunks()
        flat = metrics.flatten()
        keep = pc.and_(pc.equal(flat.field("split"), self._split), pc.is_finite(flat.field("value")))
        parents = pc.list_parent_indices(metrics).filter(keep)
        of_runs = lines.select(_COLUMNS).take(parents)
        for name in ("metric", "value"):
            of_runs = of_runs.append_column(name, flat.field(name).filter(keep))
        return of_runs

    def _matrix(self, data_key: DataKey, metric: str) -> Floats:
        lines = self._lines
        keep = pc.equal(lines["metric"], metric)
        for name, value in zip(("benchmark", "revision", "fingerprint"), data_key, strict=True):
            keep = pc.and_(keep, pc.equal(lines[name], value))
        lines = lines.filter(keep)
        rows, row_n = np.unique(lines["row"].to_numpy(zero_copy_only=False), return_inverse=True)
        seeds, seed_n = np.unique(lines["seed"].to_numpy(), return_inverse=True)
        figures_ks = np.full((len(rows), len(seeds)), np.nan)
        figures_ks[row_n, seed_n] = lines["value"].to_numpy()  # of several runs of a seed the last one stays
        return figures_ks
