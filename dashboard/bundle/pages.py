"""The pages of the exported folder: each is a view of the dashboard, run without a server, with fixed parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from dashboard.data import ablation as ablations
from dashboard.data import cards, store, sweep
from dashboard.navigation import PAGES, named
from dashboard.widgets import url_state
from harness import registry
from harness.errors import UserError
from harness.leaderboard import ablation as ablate
from harness.leaderboard.schema import Filters
from harness.store.index import BROKEN

MOST_RUNS = 200
"""At most this many runs have a page: the first seeds of the rankings' rows, then the others, then failed ones."""
SECONDS = 600.0
"""How long a page may take on a busy machine."""


@dataclass(frozen=True)
class StaticPage:
    """A page of the folder: the view, its URL parameters, the name of its file and what the menu calls it."""

    view: str
    params: tuple[tuple[str, str], ...]
    file: str
    title: str


def planned() -> list[StaticPage]:
    """All pages of the store's dashboard that are exported. The first is `index.html`."""
    found: list[StaticPage] = []
    for view, params in _views():
        number = sum(page.view == view for page in found)
        file = "index.html" if not found else f"{view}.html" if not number else f"{view}-{number + 1}.html"
        title = ", ".join(value for _, value in params) or named(view).title
        found.append(StaticPage(view, tuple(params), file, title))
    return found


def _views() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    every = store.runs()
    data = list(url_state.data_names([run for run in every if run.status != BROKEN]))
    scopes = [*data, url_state.ALL] if len(data) > 1 else data
    for view in ("leaderboard", "trade_off", "compare"):
        yield view, []
        for name in scopes if view == "leaderboard" else data:
            yield view, [("benchmark", name)]
    yield "runs", []
    for by in ("benchmark", "method", "status"):
        yield "runs", [("by", by)]
    try:
        of_rows = [row.run_ids for table in store.ranking(Filters()).tables for row in table.rows]
        rows = [ids[k] for k in range(max(map(len, of_rows), default=0)) for ids in of_rows if k < len(ids)]
    except UserError:
        rows = []
    failed = sorted((run for run in every if run.status == "failed"), key=lambda run: run.finished, reverse=True)
    for run_id in list(dict.fromkeys([*rows, *(run.run_id for run in failed)]))[:MOST_RUNS]:
        yield "run", [("run", run_id)]
    for name in data:
        yield "examples", [("data", name)]
    for name in ablations.names(store.store()):
        try:
            for benchmark in ablate.load(store.store(), name).tables:
                yield "ablation", [("ablation", name), ("benchmark", benchmark)]
        except UserError:
            yield "ablation", [("ablation", name)]
    for name in sweep.sweeps(every):
        mine = [run for run in every if f"{sweep.SWEEP}{name}" in run.tags]
        for benchmark, method, student in sorted({(run.benchmark, run.method, run.student) for run in mine}):
            yield "sweep", [("sweep", name), ("benchmark", benchmark), ("method", method), ("size", student)]
    models = cards.models(every)["model"].tolist()
    for kind, known in (("Benchmarks", registry.benchmarks()), ("Methods", registry.methods()), ("Models", models)):
        yield "about", [("what", kind)]
        used = {run.benchmark for run in every} | {run.method for run in every} | set(models)
        for name in sorted(used & set(known)):
            yield "about", [("what", kind), ("which", name)]


def links(pages: Sequence[StaticPage]) -> dict[tuple[str, frozenset[tuple[str, str]]], str]:
    """The file of each view with its parameters; a view alone is its first page."""
    found = {(page.view, frozenset(page.params)): page.file for page in pages}
    for page in pages:
        found.setdefault((page.view, frozenset()), page.file)
    return found


def file_of(address: str, known: Mapping[tuple[str, frozenset[tuple[str, str]]], str]) -> str:
    """The file that shows what an address of the dashboard shows; empty if none does."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return ""
    path = parts.path.removeprefix("./").strip("/").replace("-", "_") or PAGES[0].name
    return known.get((path, frozenset(parse_qsl(parts.query))), "")


def run(page: StaticPage) -> Any:
    """The elements of a page, as Streamlit's own test runner makes them. Raises `RuntimeError` if its script fails."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_function(_script, args=(page.view,), default_timeout=SECONDS)
    for key, value in page.params:
        app.query_params[key] = value
    app.run()
    if app.exception:
        raise RuntimeError(f"page {page.view} with {dict(page.params)}: {app.exception[0].value}")
    return app.main


def _script(view: str) -> None:
    from importlib import import_module

    import streamlit as st

    from dashboard.data import store
    from dashboard.widgets import url_state

    st.session_state[url_state.WHOLE] = True
    with store.show_user_errors():
        import_module(f"dashboard.views.{view}").show()
