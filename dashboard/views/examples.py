"""The examples page: image, question, right answer, and each run's answer and confidence."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from string import ascii_uppercase

import pandas as pd
import streamlit as st

from dashboard import navigation
from dashboard import options as started
from dashboard.data import examples, images, store
from dashboard.data import run as one_run
from dashboard.data.examples import ExampleAnswer
from dashboard.widgets import charts, url_state
from dashboard.widgets.escape import html, plain
from harness import registry
from harness.api import Example
from harness.errors import ConfigError, UserError
from harness.record import Record
from harness.stats.metrics import NO_ANSWER
from harness.store import Problem
from harness.store.index import RunSummary

A_PAGE = 8
MOST_RUNS = 4
LONGEST = 1200
"""Longer texts are cut to this many characters."""


def show() -> None:
    """The page."""
    st.title("Examples", anchor=False)
    if not store.has_runs():
        return
    by_data = _by_data()
    if not by_data:
        store.empty_state("No finished run has answers yet.", f"hkdbench list runs --store {store.store().url}")
        return
    chosen = _choose(by_data)
    if not chosen:
        st.info("Select one or more runs.", icon=":material/inbox:")
        return
    record = store.record(chosen[0])
    assert not isinstance(record, Problem)
    splits = one_run.splits(record)
    split = url_state.segmented("Split", splits, "split")
    frames = {run_id: store.predictions(run_id, split) for run_id in chosen}
    if empty := [run_id for run_id, frame in frames.items() if not len(frame)]:
        st.info(
            plain(f"No answers to split {split}: {', '.join(empty)}. Select another split or run."),
            icon=":material/inbox:",
        )
        return
    joined = examples.together(frames)
    found = _filtered(joined)
    names = _names(chosen)
    _summary(joined, found, chosen, names)
    number = url_state.page_number(examples.pages(found, A_PAGE)) if len(found) else 1
    cards(record, split, frames, examples.page(found, number, A_PAGE), names)


# ------------------------------------------------------------------------------------------ choosing


def _by_data() -> dict[str, list[RunSummary]]:
    """The runs with answers, newest first, by dataset as named in the URL."""
    runs = [e for e in store.runs() if e.status == "done" and e.kind != "robustness" and e.splits]
    runs.sort(key=lambda e: e.finished, reverse=True)
    names = url_state.data_names(runs)
    return {name: [e for e in runs if e.data_key == key] for name, key in names.items()}


def _choose(by_data: Mapping[str, list[RunSummary]]) -> list[str]:
    """Choose the dataset and the runs on it. Default: the newest run of a method."""
    asked = st.query_params.get_all("run")
    names = list(by_data)
    _check_asked(asked, by_data)
    of_asked = next((name for name, runs in by_data.items() if any(e.run_id in asked[:1] for e in runs)), None)
    left, right = st.columns([1, 3])
    with left:
        data = url_state.select("Benchmark", names, "benchmark", strict=True, given=of_asked, drops=("run", "id"))
    ids = [e.run_id for e in by_data[data]]
    first = next((e.run_id for e in by_data[data] if e.kind == "run"), ids[0])
    navigation.titled(data, "Examples")
    with right:
        note = f"At most {MOST_RUNS}. The filter and the order by confidence use the first run."
        return list(url_state.multiselect("Runs", ids, "run", [first], max_selections=MOST_RUNS, help=note))


def _check_asked(asked: list[str], by_data: Mapping[str, list[RunSummary]]) -> None:
    """Raises `ConfigError` for runs in the address that can't be shown side by side."""
    of = {e.run_id: name for name, runs in by_data.items() for e in runs}
    if unknown := [run_id for run_id in asked if run_id and run_id not in of]:
        raise ConfigError(
            f"the address asks for run {unknown[0]!r}, which isn't here or has no answers; choose runs on this page: "
            "remove the address's part after the question mark"
        )
    if len({of[run_id] for run_id in asked if run_id}) > 1:
        several = ", ".join(f"{run_id} is on {of[run_id]}" for run_id in asked if run_id)
        raise ConfigError(f"the runs in the address answered different questions: {several}; choose runs on one data")
    if len(asked) > MOST_RUNS:
        raise ConfigError(
            f"the address asks for {len(asked)} runs: expected at most {MOST_RUNS}; leave some of them out"
        )


def _filtered(joined: pd.DataFrame) -> pd.DataFrame:
    columns = st.columns([2, 2, 2, 2, 2])
    with columns[0]:
        show_ = url_state.select("Show", examples.SHOW, "show")
    with columns[1]:
        categories = url_state.multiselect("Category", sorted(joined["category"].unique()), "category")
    with columns[2]:
        sure = url_state.range_slider("Confidence of the first run, %", "sure", 100, 5)
    with columns[3]:
        order = url_state.select("Order", examples.ORDERS, "order")
    with columns[4]:
        words = url_state.text_input("Id contains", "id").split()
    return examples.sift(joined, show_, categories, (float(sure[0]), float(sure[1])), words, order)


def _names(chosen: list[str]) -> list[str]:
    """Short names of the runs for the heads of columns: labels if they are unique, else ids."""
    of = {e.run_id: e for e in store.runs()}
    labels = [f"{of[r].name or of[r].label} {of[r].student} s{of[r].seed}".replace("  ", " ") for r in chosen]
    return [label if labels.count(label) == 1 else run for label, run in zip(labels, chosen, strict=True)]


def _summary(joined: pd.DataFrame, found: pd.DataFrame, chosen: list[str], names: list[str]) -> None:
    right_nr = examples.right(joined)
    parts = [f"{name} {100 * share:.1f} % right" for name, share in zip(names, right_nr.mean(0), strict=True)]
    if len(names) > 1:
        parts.append(f"they disagree on {100 * examples.disagree(joined).mean():.1f} %")
    st.markdown(plain(f"{len(found):,} of {len(joined):,} examples. On all examples: {'; '.join(parts)}."))
    with st.container(horizontal=True):
        for run_id, name in zip(chosen, names, strict=True):
            navigation.link("run", name, run=run_id)


# ------------------------------------------------------------------------------------------- showing


def cards(
    record: Record, split: str, frames: Mapping[str, pd.DataFrame], found: pd.DataFrame, names: list[str]
) -> None:
    """Draws these examples, joined by `dashboard.data.examples.together`: image, texts and each run's answer."""
    if not len(found):
        st.info("No example matches: loosen the filters.", icon=":material/inbox:")
        return
    known: Mapping[str, Example] = {}
    key, problem = None, ""
    try:
        key = images.key(record)
        known = images.examples(key, split)
    except UserError as error:
        problem = str(error)
        _explain_missing_images(record, problem)
    st.html(_style())
    options = record.data.options if record.data else None
    for _, row in found.iterrows():
        answers = [examples.answer(frame, int(row[f"at {k}"])) for k, frame in enumerate(frames.values())]
        example = known.get(row["id"])
        if example is not None and not images.fits(example, row):
            example = None
        image = images.picture(key, split, row["id"]) if key and example else ""
        st.html(card(row, example, image, answers, names, options, bool(problem)))


def _explain_missing_images(record: Record, problem: str) -> None:
    """Shows why there are no images, and how to get them."""
    st.warning(plain(f"Only answers are shown, without images and texts: {problem}."), icon=":material/hide_image:")
    st.code(started.command(record.benchmark), language=None)
    if obtain := where_to_get(record.benchmark):
        st.caption(plain(f"How to get the data: {obtain}."))


def where_to_get(benchmark: str) -> str:
    """How to get a benchmark's files; empty for an unknown benchmark."""
    entry = registry.benchmarks().get(benchmark)
    return entry.load().obtain if entry else ""


def card(
    row: pd.Series,
    example: Example | None,
    image: tuple[bytes, tuple[int, int]] | str,
    answers: list[ExampleAnswer],
    names: list[str],
    options: list[str] | None,
    explained: bool = False,
) -> str:
    """An example with all answers, as HTML. Every text in it is escaped.

    `explained`: the page already says why there is no image.
    """
    head = f"<b>{html(row['id'])}</b> · {html(row['category'])}"
    if isinstance(image, str):
        message = image or (
            "" if explained else "not in the current version of the benchmark, or changed since the run"
        )
        picture = f'<div class="none">{html(_cut(message, 200))}</div>' if message else ""
    else:
        data, (width, height) = image
        alt = f"Image of {row['id']}, {width} by {height} pixels"
        picture = f'<img alt="{html(alt)}" src="data:image/webp;base64,{b64encode(data).decode()}">'
    texts = ""
    if example is not None:
        asked = [("", example.question), ("Context", example.context), (example.claim_label, example.claim)]
        texts = "".join(
            f"<p>{f'<span>{html(name)}</span> ' if name else ''}{html(_cut(text))}</p>" for name, text in asked if text
        )
        options = list(example.options)
    table = _options(int(row["gold"]), options, answers, names)
    return f'<div class="hkd-card"><div class="picture">{picture}</div><div><p>{head}</p>{texts}{table}</div></div>'


def _options(gold: int, options: list[str] | None, answers: list[ExampleAnswer], names: list[str]) -> str:
    """A table with a row per option and a column per run: the option's probability, and whether it was chosen."""
    size = max(
        [gold + 1, len(options or ()), *(len(a.probabilities) for a in answers), *(a.chosen + 1 for a in answers)]
    )
    heads = "".join(f"<th>{html(name)}</th>" for name in names)
    lines = []
    for k in range(size):
        text = f" {html(_cut(options[k], 300))}" if options and k < len(options) else ""
        mark = ' <span class="gold">right answer</span>' if k == gold else ""
        cells = "".join(_cell(k, gold, one) for one in answers)
        lines.append(f"<tr><td>{ascii_uppercase[k % 26]}.{text}{mark}</td>{cells}</tr>")
    unread = ""
    if any(one.chosen == NO_ANSWER for one in answers):
        cells = "".join(f"<td>{'✗ no answer' if one.chosen == NO_ANSWER else ''}</td>" for one in answers)
        unread = f"<tr><td>could not be parsed</td>{cells}</tr>"
    written = ""
    if any(one.text for one in answers):
        cells = "".join(f"<td>{_said(one)}</td>" for one in answers)
        written = f"<tr><td>full answer</td>{cells}</tr>"
    return (
        f"<table><thead><tr><th>option</th>{heads}</tr></thead><tbody>{''.join(lines)}{unread}{written}</tbody></table>"
    )


def _cell(k: int, gold: int, one: ExampleAnswer) -> str:
    chosen = ("✓ chosen, right" if k == gold else "✗ chosen, wrong") if one.chosen == k else ""
    kind = ("good" if k == gold else "bad") if chosen else ""
    if k >= len(one.probabilities):
        return f'<td class="{kind}">{chosen}</td>'
    percent = 100 * one.probabilities[k]
    bar = f'<div class="bar"><div style="width:{percent:.1f}%"></div></div>'
    return f'<td class="{kind}">{bar}<span>{percent:.0f} %</span> {chosen}</td>'


def _said(one: ExampleAnswer) -> str:
    """The text that an answer was read from; of one that the student wrote, also its length."""
    if not one.text:
        return ""
    return f"“{html(_cut(one.text))}”" + (f" ({one.tokens} tokens)" if one.tokens is not None else "")


def _cut(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _style() -> str:
    """The style of the cards in light and dark mode. Colour is never the only sign: a mark and a word repeat it."""
    line, soft = ("#3a4046", "#23282d") if charts.dark() else ("#d8dce0", "#f4f6f8")
    good, bad, bar = ("#5fd3ac", "#ff9c66", "#7cc4ee") if charts.dark() else ("#00694d", "#a84300", charts.BLUE)
    return f"""<style>
.hkd-card {{display:grid;grid-template-columns:minmax(0,260px) minmax(0,1fr);gap:1.25rem;padding:1rem;
  border:1px solid {line};border-radius:.5rem}}
.hkd-card p {{margin:0 0 .45rem;max-width:70ch;overflow-wrap:anywhere}}
.hkd-card p span {{font-weight:600}}
.hkd-card img {{max-width:100%;border:1px solid {line};border-radius:.25rem}}
.hkd-card .none {{display:grid;place-items:center;min-height:6rem;padding:.75rem;background:{soft};border-radius:.25rem;
  font-size:.85rem;text-align:center;overflow-wrap:anywhere}}
.hkd-card table {{border-collapse:collapse;width:100%;table-layout:fixed;font-size:.92rem}}
.hkd-card th, .hkd-card td {{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border:0;
  border-top:1px solid {line};overflow-wrap:anywhere}}
.hkd-card thead th {{border-top:0;font-weight:600}}
.hkd-card .gold {{border:1px solid {good};color:{good};border-radius:.25rem;padding:0 .35rem;font-size:.8rem;
  white-space:nowrap}}
.hkd-card .good {{color:{good};font-weight:600}} .hkd-card .bad {{color:{bad};font-weight:600}}
.hkd-card .bar {{height:.4rem;background:{soft};border-radius:.2rem;margin:.35rem 0 .15rem;max-width:16rem}}
.hkd-card .bar div {{height:100%;background:{bar};border-radius:.2rem}}
@media (max-width:800px) {{.hkd-card {{grid-template-columns:1fr}}}}
</style>"""
