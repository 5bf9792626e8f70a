"""What the pages read of the store, and what is kept of it in memory. Nothing here writes to it.

The store is the one that `hkdbench dashboard` was started with (`HKDBENCH_STORE`); no URL of a page can name
another. Answers are kept by what they depend on: the listing of the store's runs (looked at again after
`LISTED_SECONDS`) and the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st
from PIL import Image, ImageDraw

from dashboard.widgets.escape import plain
from harness.errors import StoreError, UserError
from harness.leaderboard import leaderboard
from harness.leaderboard.schema import Filters, Ranking
from harness.record import Record
from harness.store import Problem, Store, catalog, index
from harness.store.index import RunSummary
from harness.store.manifest import DataKey, listing_key

if TYPE_CHECKING:
    from harness.submission.checks import Report

LISTED_SECONDS = 5


@dataclass(frozen=True)
class Listing:
    """The runs of the store at one moment, by id with their stamps; `key` names that moment."""

    stamps: dict[str, str]
    key: str


@st.cache_resource(show_spinner=False)
def store() -> Store:
    """The store that is shown. Raises `StoreError` for a URL that nothing serves."""
    return Store()


@st.cache_resource(ttl=LISTED_SECONDS, max_entries=1, show_spinner=False)
def listing() -> Listing:
    """Which runs there are: one listing of the store, no file opened. Raises `StoreError`."""
    stamps = store().versions()
    return Listing(stamps, listing_key(stamps))


def runs() -> list[RunSummary]:
    """One line a run, sorted by id, broken ones (`status` "broken") among them; see `harness.store.index`."""
    return _runs(listing().key)


@st.cache_resource(max_entries=1, show_spinner="Reading the runs…")
def _runs(key: str) -> list[RunSummary]:
    return index.from_arrow(_lines(key))


@st.cache_resource(max_entries=1, show_spinner="Reading the runs…")
def _lines(key: str) -> pa.Table:
    columns = [*index.LIGHT, "metrics"]
    return catalog.View(store(), columns).lines(columns)


def stated(data_key: DataKey | None, split: str) -> list[str]:
    """The names of the figures that records state for a split, of the runs on some data or of all."""
    return _stated(listing().key, data_key, split)


@st.cache_data(max_entries=64, show_spinner=False)
def _stated(key: str, data_key: DataKey | None, split: str) -> list[str]:
    lines = _lines(key)
    if data_key is not None:
        for name, value in zip(("benchmark", "revision", "fingerprint"), data_key, strict=True):
            lines = lines.filter(pc.equal(lines[name], value))
    figures = pc.list_flatten(lines["metrics"])
    mine = figures.filter(pc.equal(pc.struct_field(figures, "split"), split))
    return sorted(pc.unique(pc.struct_field(mine, "metric")).to_pylist())


def ranking(filters: Filters) -> Ranking:
    """The ranking that `hkdbench rank` gives. Raises `ConfigError` for names that no run has."""
    return _ranking(listing().key, filters.model_dump_json())


@st.cache_resource(max_entries=24, show_spinner="Ranking…")
def _ranking(key: str, filters: str) -> Ranking:
    return leaderboard.ranking(store(), Filters.model_validate_json(filters), keep=False)


def record(run_id: str) -> Record | Problem:
    """A run's record, or what is wrong with it. Raises `StoreError` where no run has this id."""
    known = listing().stamps
    if run_id not in known:
        raise StoreError(f"no run {run_id!r} in this store: choose one from the leaderboard")
    return _record(run_id, known[run_id])


@st.cache_resource(max_entries=64, show_spinner=False)
def _record(run_id: str, stamp: str) -> Record | Problem:
    return store().load(run_id)


def history(run_id: str) -> pd.DataFrame:
    """The logged values of a run, see `harness.store.schemas.HISTORY`. Raises `StoreError` where it has none."""
    return _history(run_id, listing().stamps.get(run_id, ""))


@st.cache_data(max_entries=16, show_spinner="Reading the curves…")
def _history(run_id: str, stamp: str) -> pd.DataFrame:
    return store().history(run_id)


def predictions(run_id: str, split: str) -> pd.DataFrame:
    """A run's answers to a split, see `harness.store.schemas.PREDICTIONS`: a few runs' are kept, never all.

    Raises `StoreError` where it has none.
    """
    return _predictions(run_id, listing().stamps.get(run_id, ""), split)


@st.cache_data(max_entries=8, show_spinner="Reading the answers…")
def _predictions(run_id: str, stamp: str, split: str) -> pd.DataFrame:
    return store().predictions(run_id, split)


def verified(run_id: str, data_dir: Path | None) -> Report:
    """What `hkdbench verify` finds of a run: each time anew, since files may have changed that no stamp tells of."""
    from harness.submission import verify

    return verify.verify(store(), run_id, data_dir)


@st.cache_resource(show_spinner=False)
def icon() -> Image.Image:
    """Three bars for the browser's tab: drawn here, since Streamlit would fetch its own from the network."""
    drawn = Image.new("RGBA", (32, 32))
    for left, top, colour in ((3, 16, "#56B4E9"), (12, 4, "#0072B2"), (21, 22, "#E69F00")):
        ImageDraw.Draw(drawn).rectangle((left, top, left + 7, 29), fill=colour)
    return drawn


# --------------------------------------------------------------------------------------- what to do instead


@contextmanager
def mistakes_told() -> Iterator[None]:
    """A user's mistake (a name that isn't there, a store that can't be read) is told in words on the page."""
    try:
        yield
    except UserError as error:
        st.error(plain(error), icon=":material/error:")


def any_runs() -> bool:
    """Whether the store has runs; where not, the page says how to get some."""
    if listing().stamps:
        return True
    nothing(
        f"No runs yet in {store().url}.",
        f"hkdbench demo --store {store().url}",
        f"hkdbench run --method finetune --benchmark scenes_hallucination --store {store().url}",
    )
    return False


def nothing(said: str, *commands: str) -> None:
    """An empty state: what isn't there, and the commands that fill it."""
    st.info(plain(said), icon=":material/inbox:")
    if commands:
        st.markdown("Fill it with")
        st.code("\n".join(commands), language=None)
