"""The page of benchmarks, methods and models: a card each with description, source, settings and results so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import navigation, options
from dashboard.data import cards, catalog, store
from dashboard.widgets import dataframes, url_state
from dashboard.widgets.escape import plain
from harness import registry
from harness.errors import UserError
from harness.leaderboard.schema import Filters, Row


def show() -> None:
    """The page."""
    st.title("Benchmarks & methods", anchor=False)
    of_store = cards.models(store.runs()) if store.listing().stamps else None
    known = {"Benchmarks": sorted(registry.benchmarks()), "Methods": sorted(registry.methods())}
    known["Models"] = [] if of_store is None else of_store["model"].tolist()
    left, right = st.columns([1, 3])
    with left:
        kind = url_state.segmented("Show", list(known), "what")
    with right:
        name = url_state.select_optional(kind.removesuffix("s"), known[kind], "which", "all")
    navigation.titled(*([name] if name else []), kind)
    if name is None:
        _all(kind)
    elif kind == "Models":
        _model(name)
    elif kind == "Methods":
        _method(name)
    else:
        _benchmark(name)
    for problem in registry.problems():
        st.warning(plain(f"Not loaded: {problem}"), icon=":material/extension_off:")


def _all(kind: str) -> None:
    of_kind = {"Methods": catalog.methods, "Benchmarks": catalog.benchmarks, "Models": cards.models}
    frame = of_kind[kind](store.runs())
    if not len(frame):
        st.info("No model has been trained in this store yet.", icon=":material/inbox:")
        return
    first = frame.columns[0]
    dataframes.show_frame(frame, f"all-{kind}", kind, links={first: ("about", "which", {"what": kind})})
    if kind == "Methods":
        st.info(catalog.RECONSTRUCTION, icon=":material/info:")
    st.caption("Plugins add more: hkdbench dashboard --plugin FILE.py")


# -------------------------------------------------------------------------------------------- method


def _method(name: str) -> None:
    found = catalog.method(name)
    st.header(plain(name), anchor=False)
    if registry.methods()[name].load().name == "hkd4vlm":
        st.info(catalog.RECONSTRUCTION, icon=":material/info:")
    source = f" Source: {found['source']}." if found["source"] else ""
    st.markdown(plain(f"{found['summary']}.{source}"))
    _docstring(found["text"])
    _frame("Training stages, for student S of the ladder L > M > S", found["stages"])
    _frame("Settings", catalog.settings(found))
    st.caption("Change a setting with --set settings.NAME=VALUE, or under settings in the file of a run or suite.")
    _frame("Presets", found["presets"])
    _frame("Ablations", found["ablations"])
    if len(found["ablations"]):
        st.code(f"hkdbench ablate {name}", language=None)
    _cite(found["source"])
    _results(name, lambda row: row.method == name, what="Methods")


# ------------------------------------------------------------------------------- models, results, citations


def _model(name: str) -> None:
    st.header(plain(name), anchor=False)
    frame = cards.models(store.runs()).set_index("model").loc[name]
    facts = pd.DataFrame([(k, str(v)) for k, v in frame.items()], columns=["property", "value"])
    dataframes.show_frame(facts, "facts", f"Properties of {name}")
    _results(name, lambda row: cards.of_ladder(row.student, row.ladder) == name, what="Models")


def _results(name: str, chosen: Callable[[Row], bool], what: str) -> None:
    """Draws the results so far of a method, a benchmark or a model, and who made them."""
    st.subheader("Results so far", anchor=False)
    try:
        frame, count = cards.results(store.ranking(Filters()), chosen, store.store()) if store.runs() else (None, 0)
    except UserError:  # nothing in this store has been scored
        frame, count = None, 0
    if frame is None or not count:
        st.caption("None in this store.")
        return
    dataframes.show_frame(frame, f"results-{what}", f"Results of {name}", links={"run": ("run", "run", {})})
    left_out = f" The first {len(frame)} of {count:,} rows." if count > len(frame) else ""
    st.caption(
        f"On the test split; the rank is among all rows of the benchmark. The run is that of the first seed.{left_out}"
    )


def _cite(source: str) -> None:
    if source:
        st.subheader("Cite", anchor=False)
        st.code(source, language=None, wrap_lines=True)


def _docstring(text: str) -> None:
    """A module's docstring: the first paragraph as prose, the rest preformatted because it may contain formulas."""
    first, _, rest = text.partition("\n\n")
    st.markdown(plain(first))
    if rest:
        st.code(rest, language=None, wrap_lines=True)


def _frame(title: str, frame: pd.DataFrame) -> None:
    if len(frame):
        st.subheader(title, anchor=False)
        dataframes.show_frame(frame, f"frame-{title}", title)


# ----------------------------------------------------------------------------------------- benchmark


@st.cache_resource(max_entries=64, show_spinner="Counting examples…")
def _described(name: str, key: str) -> dict[str, Any]:
    return catalog.benchmark(name, store.store())


def _benchmark(name: str) -> None:
    found = _described(name, store.listing().key)
    st.header(plain(name), anchor=False)
    sizes = found.get("sizes") or {}
    facts = {
        "task": catalog.TASKS[found["task"]],
        "examples": ", ".join(f"{split} {size:,}" for split, size in sizes.items()) or ", ".join(found["splits"]),
        "licence": found["licence"],
        "source": found["homepage"],
        "positive class": found["positive"],
        "protocols": ", ".join(found.get("protocols") or ()),
        "revision": found["revision"],
    }
    frame = pd.DataFrame([(k, v) for k, v in facts.items() if v], columns=["property", "value"])
    dataframes.show_frame(frame, "facts", f"Properties of {name}")
    st.markdown(plain(found["text"].partition("\n\n")[0]))
    if rest := found["text"].partition("\n\n")[2]:
        with st.expander("More about this benchmark"):
            st.markdown("\n\n".join(plain(part) for part in rest.split("\n\n")))
    if found["needs_data_dir"]:
        st.subheader("Where to get the data", anchor=False)
        st.markdown(plain(f"{found['obtain']}."))
        if options.data_dir(name) is None:
            st.caption("To see its images in the dashboard, start it with")
            st.code(options.command(name), language=None)
    for line in found.get("controls", ()):
        st.warning(plain(f"Warning from a control: {line}"), icon=":material/warning:")
    _cite(found["citation"])
    _results(name, lambda row: row.benchmark == name, what="Benchmarks")
    _power(name, sizes.get("test"))
    _frame("Settings", catalog.settings(found))
    for protocol, text in (found.get("protocol_texts") or {}).items():
        with st.expander(plain(f"Protocol {protocol}")):
            st.markdown(plain(text or "No description.", lines=True))


def _power(name: str, examples: int | None) -> None:
    """The smallest difference that a test on this benchmark can detect."""
    st.subheader("Smallest detectable difference", anchor=False)
    if name in {run.benchmark for run in store.runs() if run.status == "done" and run.kind == "run"}:
        for row in _measured(name, store.listing().key):
            st.markdown(plain(row))
    if examples:
        frame = catalog.by_size(examples)
        rows = "; ".join(
            f"{r.discordant:.0f}\u00a0%\u00a0→\u00a0{r.difference:.1f}\u00a0points"
            for r in frame.itertuples(index=False)
        )
        st.markdown(
            plain(
                f"With {examples:,} test examples and one seed, it depends on the share of examples that "
                f"exactly one of two rows answers correctly: {rows}."
            )
        )
    st.caption(
        "A test at the 5 % level finds a difference of this size with 80 % power. The estimate from the number of "
        "examples treats them as independent."
    )


@st.cache_data(max_entries=64, show_spinner="Computing the smallest detectable difference…")
def _measured(name: str, key: str) -> list[str]:
    sentences = []
    for table in store.ranking(Filters(benchmark=name)).tables:
        if (found := catalog.measured(table, store.store())) is not None:
            a, b, least, images, seeds = found
            sentences.append(
                f"Measured in this store between {a} and {b}, on {images:,} images with {seeds} "
                f"seed{'s' if seeds > 1 else ''}: {100 * least:.1f} points."
            )
    return sentences
