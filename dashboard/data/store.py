"""Reads the store for the pages and caches the results in memory. Never writes to the store.

The store is the one that `hkdbench dashboard` was started with (`HKDBENCH_STORE`); a URL can't name another. Results
are cached by the listing of the store's runs, which is refreshed every `LISTED_SECONDS`, and by the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from dashboard.widgets.escape import plain
from harness.errors import StoreError, UserError
from harness.leaderboard import leaderboard
from harness.leaderboard.schema import Filters, Ranking
from harness.record import Interval, Record, Reproduction
from harness.store import Problem, Store, catalog, checksums, index
from harness.store.index import RunSummary
from harness.store.manifest import DataKey, listing_key

if TYPE_CHECKING:
    from harness.submission.checks import Report

LISTED_SECONDS = 5


@dataclass(frozen=True)
class Listing:
    """The runs of the store at one moment, as id to stamp. When a run changes, so do its stamp and `key`."""

    stamps: dict[str, str]
    key: str


@st.cache_resource(show_spinner=False)
def store() -> Store:
    """The store that is shown. Raises `StoreError` for a URL of an unknown kind."""
    return Store()


@st.cache_resource(ttl=LISTED_SECONDS, max_entries=1, show_spinner=False)
def listing() -> Listing:
    """The runs of the store. Lists the store and opens no file. Raises `StoreError`."""
    stamps = store().versions()
    return Listing(stamps, listing_key(stamps))


def runs() -> list[RunSummary]:
    """A summary of every run, sorted by id. Includes broken runs (`status` "broken"); see `harness.store.index`."""
    return _runs(listing().key)


@st.cache_resource(max_entries=1, show_spinner="Reading the runs…")
def _runs(key: str) -> list[RunSummary]:
    return index.from_arrow(_lines(key))


@st.cache_resource(max_entries=1, show_spinner="Reading the runs…")
def _lines(key: str) -> pa.Table:
    columns = [*index.LIGHT, "metrics"]
    return catalog.View(store(), columns).lines(columns)


def metric_names(data_key: DataKey | None, split: str) -> list[str]:
    """The names of the metrics that runs have on a split; `data_key` limits it to runs on these data."""
    return _metric_names(listing().key, data_key, split)


@st.cache_data(max_entries=64, show_spinner=False)
def _metric_names(key: str, data_key: DataKey | None, split: str) -> list[str]:
    lines = _lines(key)
    if data_key is not None:
        for name, value in zip(("benchmark", "revision", "fingerprint"), data_key, strict=True):
            lines = lines.filter(pc.equal(lines[name], value))
    figures = pc.list_flatten(lines["metrics"])
    mine = figures.filter(pc.equal(pc.struct_field(figures, "split"), split))
    return sorted(pc.unique(pc.struct_field(mine, "metric")).to_pylist())


def figures(split: str, metric: str) -> dict[str, float]:
    """A metric of every run that has it on a split, by run id, as it is stored (a fraction)."""
    return _figures(listing().key, split, metric)


@st.cache_resource(max_entries=4, show_spinner=False)
def _figures(key: str, split: str, metric: str) -> dict[str, float]:
    lines = _lines(key)
    found = lines["metrics"].combine_chunks()
    values, owners = pc.list_flatten(found), pc.list_parent_indices(found)
    fields = {"split": split, "metric": metric}
    asked = [pc.equal(pc.struct_field(values, name), wanted) for name, wanted in fields.items()]
    mine = pc.and_(*asked)
    ids = lines["run_id"].combine_chunks().take(owners.filter(mine)).to_pylist()
    return dict(zip(ids, pc.struct_field(values, "value").filter(mine).to_pylist(), strict=True))


def ranking(filters: Filters) -> Ranking:
    """The same ranking as from `hkdbench rank`. Raises `ConfigError` for names that no run has."""
    return _ranking(listing().key, filters.model_dump_json())


@st.cache_resource(max_entries=10, show_spinner="Ranking…")
def _ranking(key: str, filters: str) -> Ranking:
    return leaderboard.ranking(store(), Filters.model_validate_json(filters), keep=False)


def row_values(filters: Filters, metrics: Sequence[str]) -> dict[str, dict[tuple[str, ...], Interval]]:
    """By metric: its value in each row of the ranking, by the row's runs. The rankings themselves aren't kept."""
    return _row_values(listing().key, filters.model_dump_json(), tuple(metrics))


@st.cache_resource(max_entries=8, show_spinner="Ranking…")
def _row_values(key: str, filters: str, metrics: tuple[str, ...]) -> dict[str, dict[tuple[str, ...], Interval]]:
    asked = Filters.model_validate_json(filters)
    found: dict[str, dict[tuple[str, ...], Interval]] = {}
    for name in metrics:
        rows = leaderboard.ranking(store(), asked.model_copy(update={"metric": name}), keep=False).rows
        found[name] = {row.run_ids: row.values[name] for row in rows if name in row.values}
    return found


def record(run_id: str) -> Record | Problem:
    """A run's record, or what is wrong with it. Raises `StoreError` if no run has this id."""
    known = listing().stamps
    if run_id not in known:
        raise StoreError(f"no run {run_id!r} in this store: select one on the leaderboard")
    return _record(run_id, known[run_id])


@st.cache_resource(max_entries=64, show_spinner=False)
def _record(run_id: str, stamp: str) -> Record | Problem:
    return store().load(run_id)


def reproductions(record: Record) -> tuple[list[Reproduction], list[str]]:
    """What came of training the run again, the last time first, and what is wrong with results that can't be used."""
    found, wrong = checksums.reproductions(record, store().backend)
    return found[::-1], wrong


def history(run_id: str) -> pd.DataFrame:
    """The logged values of a run, see `harness.store.schemas.HISTORY`. Raises `StoreError` if it has none."""
    return _history(run_id, listing().stamps.get(run_id, ""))


@st.cache_data(max_entries=16, show_spinner="Reading the curves…")
def _history(run_id: str, stamp: str) -> pd.DataFrame:
    return store().history(run_id)


def predictions(run_id: str, split: str) -> pd.DataFrame:
    """A run's answers to a split, see `harness.store.schemas.PREDICTIONS`. Only those of a few runs are cached.

    Raises `StoreError` if it has none.
    """
    return _predictions(run_id, listing().stamps.get(run_id, ""), split)


@st.cache_data(max_entries=8, show_spinner="Reading the answers…")
def _predictions(run_id: str, stamp: str, split: str) -> pd.DataFrame:
    return store().predictions(run_id, split)


def verify_run(run_id: str, data_dir: Path | None) -> Report:
    """The report of `hkdbench verify` on a run. Not cached: files may have changed without a new stamp."""
    from harness.submission import verify

    return verify.verify(store(), run_id, data_dir)


# --------------------------------------------------------------------------------------- errors and empty states


@contextmanager
def show_user_errors() -> Iterator[None]:
    """Shows a `UserError`, such as an unknown name or an unreadable store, as a message on the page."""
    try:
        yield
    except UserError as error:
        st.error(plain(error), icon=":material/error:")


def has_runs() -> bool:
    """Whether the store has runs. If not, the page shows how to get some."""
    if listing().stamps:
        return True
    empty_state(
        store().backend.missing() or f"No runs yet in {store().url}.",
        f"hkdbench demo --store {store().url}",
        f"hkdbench run --method finetune --benchmark scenes_hallucination --store {store().url}",
    )
    return False


def show_broken(filters: Filters | None = None) -> None:
    """Lists the runs that can't be read: those without a valid record, and with `filters` those that this ranking is
    computed without."""
    found = [f"{run.run_id}: {run.problem}" for run in runs() if run.status == index.BROKEN]
    broken = found if filters is None else list(map(str, ranking(filters).broken))
    if broken:
        with st.expander(
            f"{len(broken)} broken run{'' if len(broken) == 1 else 's'}, not included above", icon=":material/warning:"
        ):
            st.markdown("\n".join(f"- {plain(one)}" for one in broken[:200]))
            if len(broken) > 200:
                st.markdown("Only the first 200 are listed here; `hkdbench rank` lists all.")


def empty_state(message: str, *commands: str) -> None:
    """Shows an empty state: what is missing, and the commands that create it."""
    st.info(plain(message), icon=":material/inbox:")
    if commands:
        st.markdown("Run this command:" if len(commands) == 1 else "Run one of these commands:")
        st.code("\n".join(commands), language=None)
