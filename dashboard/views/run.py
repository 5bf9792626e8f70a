"""The run page: results, training curves, settings, costs and provenance of one run."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import navigation
from dashboard import options as started
from dashboard.data import catalog, run, runs, store
from dashboard.widgets import charts, curves, dataframes, url_state
from dashboard.widgets.escape import plain
from harness.errors import StoreError
from harness.record import Record
from harness.report.format import count, short
from harness.report.run import command, configuration
from harness.store import Problem

STATUS = {
    "done": (":material/check_circle:", "done", "green"),
    "failed": (":material/error:", "failed", "red"),
    "interrupted": (":material/pause_circle:", "interrupted", "orange"),
}
SECTIONS = ("Results", "Curves", "Training", "Cost", "Provenance")
MOST_SEEDS = 20
VERIFIED = {
    "ok": ":material/check_circle: nothing changed",
    "changed": ":material/error: something changed",
    "unverified": ":material/help: nothing changed, but not everything could be checked",
}


def show() -> None:
    """The page."""
    st.title("Run", anchor=False)
    if not store.has_runs():
        return
    run_id = url_state.select_optional("Run", list(store.listing().stamps), "run", "select, or type a part of the id")
    if run_id is None:
        _latest()
        return
    record = store.record(run_id)
    if isinstance(record, Problem):
        st.error(plain(f"This run is broken: {record.message}"), icon=":material/error:")
        return
    _head(record)
    opened = url_state.tabs(SECTIONS, "section")
    drawn = (_figures, _curves, _training, _cost, _provenance)
    for tab, draw in zip(opened, drawn, strict=True):
        if tab.open:
            with tab:
                draw(record)


def _latest() -> None:
    """Draws the runs that finished last, as links."""
    navigation.link("runs", "All runs, with filters")
    st.caption("The most recent runs:")
    recent = sorted(store.runs(), key=lambda one: one.finished, reverse=True)[:20]
    frame = runs.frame(recent, {})
    frame["finished"] = [dataframes.format_time(time).replace(" ", "\u00a0") for time in frame["finished"]]
    frame["method"] = runs.short_labels(frame["method"].tolist())
    shown = frame[["run", "status", "method", "student", "benchmark", "seed", "finished"]]
    dataframes.show_frame(shown, "latest", "Recent runs", links={"run": ("run", "run", {})})


# ------------------------------------------------------------------------------------------- the head


def _head(record: Record) -> None:
    icon, status, colour = STATUS[record.status]
    seed = f", seed {record.seed}" if record.student else ""
    who = f", student {record.student} of ladder {record.ladder}" if record.student else ""
    st.markdown(f":{colour}-badge[{icon} {status}] {plain(f'{record.method} on {record.benchmark}{who}{seed}')}")
    if record.error:
        at = f" in stage {record.error.stage!r} at step {record.error.step}" if record.error.stage else ""
        st.error(plain(f"{record.error.type}{at}: {record.error.message}"), icon=":material/error:")
        _mend(record)
    if record.kind == "robustness":
        st.info(
            "A robustness check: the student of another run, evaluated on varied inputs. It is not ranked.",
            icon=":material/info:",
        )
    numbers = list(run.headline(record))
    if record.parameters is not None and record.student:
        numbers.append(("student parameters", count(record.parameters)))
    if record.status == "done" and record.student:
        numbers.append(("training TFLOP, including teachers", short(record.cost.train_flops / 1e12)))
    for column, (name, value) in zip(st.columns(4), numbers, strict=False):
        column.metric(name, value)
    if record.status == "done":
        with st.container(horizontal=True):
            navigation.link("examples", "Browse its answers", run=[record.run_id])
            navigation.link("compare", "Compare with another run", a=record.run_id)
    _seeds(record)
    if record.method == "hkd4vlm":
        st.caption(catalog.RECONSTRUCTION)


def _mend(record: Record) -> None:
    """What to do about a run that failed: the command that runs it again, and where its code stopped."""
    line = command(record)
    st.markdown(
        "Change what the message names. This command runs it again, from its last checkpoint if it has one:"
        if line
        else "The same command runs it again, from its last checkpoint if it has one."
    )
    if line:
        st.code(line, language="bash", wrap_lines=True)
    if record.error and record.error.traceback:
        with st.expander("Traceback"):
            st.code(record.error.traceback, language=None)


def _seeds(record: Record) -> None:
    """Links to the other seeds of the run's row, with the status of those that aren't done."""
    every = store.runs()
    of = next((one for one in every if one.run_id == record.run_id), None)
    others = [one for one in runs.seeds_of(every, of) if one.run_id != record.run_id] if of and record.student else []
    if not others:
        return
    with st.container(horizontal=True):
        st.caption("Other seeds:", width="content")
        for one in others[:MOST_SEEDS]:
            status = "" if one.status == "done" else f" ({one.status})"
            navigation.link("run", f"seed {one.seed}{status}", run=one.run_id)
        ids = [record.run_id, *(one.run_id for one in others[:MOST_SEEDS])]
        navigation.link("runs", "All, with curves", row=record.run_id, curve=ids)


# ------------------------------------------------------------------------------------------- results


def _figures(record: Record) -> None:
    splits = run.splits(record)
    if not splits:
        st.info(f"No results: the run has status {record.status!r}.", icon=":material/inbox:")
        return
    split = url_state.segmented("Split", splits, "split")
    try:
        predictions = store.predictions(record.run_id, split)
    except StoreError as error:
        st.warning(plain(error), icon=":material/warning:")
        predictions = None
    left, right = st.columns(2, gap="large")
    with left:
        _by_category(record, split, predictions)
    if predictions is not None and len(predictions):
        with right:
            _confusion(predictions, record.data.options if record.data else None)
        with left:
            _calibration(predictions)
    with right:
        st.subheader("All metrics", anchor=False)
        forms = dict.fromkeys(("value", "low", "high"), "{:.2f}")
        dataframes.show_frame(run.figures(record, split), f"figures-{split}", f"All metrics on {split}", forms)
        st.caption("low and high: 95 % bootstrap interval over images, if the metric has one.")


def _by_category(record: Record, split: str, predictions: pd.DataFrame | None) -> None:
    frame = run.categories(record, split, predictions)
    if not len(frame):
        return
    st.subheader("Accuracy by category", anchor=False)
    chance = record.metrics[split].get("chance")
    frame["name"] = [f"{c} ({n:,})" if n else c for c, n in zip(frame["category"], frame["examples"], strict=True)]
    y = alt.Y("name:N", title=None, sort=None)
    tips: list[Any] = ["name:N", *(alt.Tooltip(f"{c}:Q", format=".1f") for c in ("value", "low", "high"))]
    scale = alt.Scale(domain=[0, 100])
    bars = alt.Chart(frame).encode(y=y, tooltip=tips)
    layers = [
        bars.mark_bar(color=charts.SKY, opacity=0.75, height={"band": 0.62}).encode(
            x=alt.X("value:Q", title="accuracy, % (number of examples in brackets)", scale=scale)
        ),
        bars.mark_rule(color=charts.ink(), strokeWidth=2).encode(x="low:Q", x2="high:Q"),
    ]
    if chance is not None:
        layers.append(_reference(100 * chance.value, "chance"))
    chart = alt.layer(*layers).properties(height=38 * len(frame) + 60)
    summary = "; ".join(f"{r.name} {r.value:.1f}" for r in frame.itertuples(index=False))
    charts.draw(chart, f"Accuracy in per cent by category with 95 % intervals: {summary}")


def _reference(at: float, name: str) -> Any:
    """A vertical line with its name above it."""
    base = alt.Chart(pd.DataFrame({"at": [at], "name": [f"{name} {at:.0f}"]})).encode(x="at:Q")
    line = base.mark_rule(strokeDash=[4, 4], color=charts.faint(), strokeWidth=1.5)
    return line + base.mark_text(baseline="bottom", dy=-2, color=charts.faint()).encode(y=alt.value(0), text="name:N")


def _confusion(predictions: pd.DataFrame, options: list[str] | None) -> None:
    st.subheader("Confusion matrix", anchor=False)
    frame = run.confusion(predictions, options)
    order = list(dict.fromkeys(frame["gold"]))
    chosen = list(dict.fromkeys(frame["chosen"]))
    base = alt.Chart(frame).encode(
        x=alt.X("chosen:N", title="chosen answer", sort=chosen, axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("gold:N", title="right answer", sort=order),
        tooltip=["gold:N", "chosen:N", "count:Q", alt.Tooltip("share:Q", format=".1%")],
    )
    fill = alt.Color("share:Q", scale=alt.Scale(scheme="blues", domain=[0, 1]), legend=None)
    text = base.mark_text(fontSize=14).encode(
        text=alt.Text("count:Q", format=","),
        color=alt.condition("datum.share > 0.5", alt.value("#ffffff"), alt.value("#1b1f24")),
    )
    frame_of_right = base.transform_filter("datum.right").mark_rect(
        fillOpacity=0, stroke=charts.ORANGE, strokeWidth=2.5
    )
    chart = alt.layer(base.mark_rect().encode(color=fill), frame_of_right, text)
    summary = "; ".join(f"{r['gold']} as {r['chosen']} {r['count']}" for r in frame.to_dict("records") if r["count"])
    charts.draw(chart.properties(height=52 * len(order) + 60), f"Confusion matrix, examples: {summary}")
    letters = "" if options else " Every example has its own options, so they are named by letter."
    st.caption(f"Number of examples. The shade is the share within the row; right answers have a frame.{letters}")


def _calibration(predictions: pd.DataFrame) -> None:
    st.subheader("Calibration", anchor=False)
    frame = run.calibrated(predictions)
    if not len(frame):
        st.caption("The answers have no scores, so there is no confidence.")
        return
    x = alt.X("confidence:Q", title="confidence (probability of the answer), %", scale=alt.Scale(domain=[0, 100]))
    tips = [alt.Tooltip(f"{c}:Q", format=".1f") for c in ("confidence", "accuracy", "low", "high")] + ["examples:Q"]
    base = alt.Chart(frame).encode(x=x, tooltip=tips)
    title = "accuracy, %"
    bars = base.mark_rule(color=charts.strong(), strokeWidth=2).encode(
        y=alt.Y("low:Q", title=title, scale=alt.Scale(domain=[0, 100])), y2="high:Q"
    )
    size = alt.Size("examples:Q", scale=alt.Scale(range=[30, 500]), legend=None)
    points = base.mark_circle(color=charts.strong(), opacity=0.85).encode(y=alt.Y("accuracy:Q", title=title), size=size)
    ideal = alt.Chart(pd.DataFrame({"confidence": [0, 100], "accuracy": [0, 100]}))
    line = ideal.mark_line(strokeDash=[4, 4], color=charts.faint()).encode(x="confidence:Q", y="accuracy:Q")
    summary = "; ".join(
        f"confidence {r.confidence:.0f}, accuracy {r.accuracy:.0f}" for r in frame.itertuples(index=False)
    )
    charts.draw(alt.layer(line, bars, points).properties(height=300), f"Reliability diagram, per cent: {summary}")
    st.caption(
        "Each point is a bin of confidence; its size shows the number of examples. Below the dashed line the run is "
        "overconfident. Bars: Wilson's 95 % interval, examples treated as independent."
    )


# -------------------------------------------------------------------------------------------- curves


def _curves(record: Record) -> None:
    if not record.stages:
        st.info("No curves: this run trained nothing.", icon=":material/inbox:")
        return
    try:
        history = store.history(record.run_id)
    except StoreError as error:
        st.info(plain(error), icon=":material/inbox:")
        return
    curves.draw_all(history, run.of_stages(record))


# ------------------------------------------------------------------------------- training, cost, provenance


def _training(record: Record) -> None:
    st.subheader("Training stages and roles", anchor=False)
    frame = run.stages(record)
    if len(frame):
        dataframes.show_frame(
            frame, "stages", "Stages and roles", {"best validation accuracy, %": "{:.1f}", "share of budget": "{:g}"}
        )
    else:
        st.caption("None: this run trained nothing; the model was evaluated as it is.")
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Method settings", anchor=False)
        frame = run.settings(record)
        if len(frame):
            dataframes.show_frame(frame, "settings", "Method settings")
        else:
            st.caption("The method has no settings.")
    with right:
        st.subheader("Training and evaluation settings", anchor=False)
        dataframes.show_frame(run.training(record), "training", "Training and evaluation settings")


def _cost(record: Record) -> None:
    frame = run.cost(record)
    c = record.cost
    times = {"training": c.train_seconds, "validation": c.validation_seconds, "test": c.test_seconds}
    memory = f"; peak memory {c.peak_memory_bytes / 2**20:,.0f} MiB" if c.peak_memory_bytes else ""
    summary = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in times.items())
    st.markdown(
        plain(f"{summary}; total {c.total_seconds:,.1f} s; {c.test_forwards:,} forward passes on test{memory}.")
    )
    if not len(frame):
        st.info("This run trained nothing, so it has no training cost.", icon=":material/inbox:")
        return
    frame["name"] = frame["stage"] + " · " + frame["role"]
    chart = (
        alt.Chart(frame)
        .mark_bar(color=charts.SKY, height={"band": 0.62})
        .encode(
            x=alt.X("TFLOP:Q", title="training TFLOP (estimated)", axis=charts.ticks()),
            y=alt.Y("name:N", title=None, sort=None),
            tooltip=["name:N", "TFLOP:Q", "seconds:Q", "forward passes:Q"],
        )
        .properties(height=38 * len(frame) + 80)
    )
    summary = "; ".join(f"{r.name} {r.TFLOP:.3g}" for r in frame.itertuples(index=False))
    charts.draw(chart, f"TFLOP of training by stage and role: {summary}")
    dataframes.show_frame(frame.drop(columns="name"), "cost", "Cost by role", {"TFLOP": "{:.3f}", "seconds": "{:.1f}"})
    st.caption("The teachers' computations are included. FLOPs are estimated from parameters and tokens.")


def _provenance(record: Record) -> None:
    _verify(record)
    _again(record)
    st.subheader("Provenance of the results", anchor=False)
    frame = pd.DataFrame(run.provenance(record), columns=["property", "value"])
    dataframes.show_frame(frame, "provenance", "Provenance of the results")
    for line in run.leaks(record):
        st.warning(plain(f"Splits of the data share examples: {line}"), icon=":material/warning:")
    with st.expander("Full hashes"):
        st.code("\n".join(f"{name}: {value}" for name, value in run.hashes(record)), language=None)
    st.subheader("Cite this run", anchor=False)
    st.code(run.citation(record), language=None, wrap_lines=True)


def _again(record: Record) -> None:
    """The command and the configuration that make the run again, and what came of doing so."""
    line = command(record)
    if not line:
        return
    st.subheader("Run it again", anchor=False)
    st.code(line, language="bash", wrap_lines=True)
    st.caption("Add --data-dir if the benchmark reads published files. To train it again and compare the answers:")
    st.code(f"hkdbench reproduce {record.run_id}", language="bash", wrap_lines=True)
    st.download_button(
        "Download the configuration", configuration(record), f"{record.run_id}.toml", "application/toml",
        icon=":material/download:", key=f"configuration-{record.run_id}",
    )  # fmt: skip
    found, wrong = store.reproductions(record)
    if found:
        forms = dict.fromkeys(run.reproductions(found).columns[3:7], "{:.1f}")
        dataframes.show_frame(run.reproductions(found), "reproduced", "Results of training it again", forms)
        st.caption("A result is as trustworthy as the one who trained it again and wrote it into this store.")
    for text in wrong:
        st.warning(plain(text), icon=":material/warning:")


def _verify(record: Record) -> None:
    """The button that runs `hkdbench verify`, and its report."""
    st.subheader("Verification", anchor=False)
    st.caption(
        "Computes every metric again from the stored answers, and compares it with the record. Also checks the ids, "
        "the right answers and the checksums."
    )
    if not st.button("Verify", icon=":material/fact_check:", key=f"verify-{record.run_id}"):
        return
    with st.spinner("Computing every metric again…", show_time=True):
        report = store.verify_run(record.run_id, started.data_dir(record.benchmark))
    st.markdown(f"**{VERIFIED[report.state]}**")
    frame = pd.DataFrame([(f.state, f.check, f.detail) for f in report.findings], columns=["state", "check", "details"])
    dataframes.show_frame(frame, "findings", "Checks")
    if (
        any(f.check in ("data", "golds") for f in report.of("unverified"))
        and started.data_dir(record.benchmark) is None
    ):
        st.markdown("To check more, start the dashboard with the benchmark's files:")
        st.code(started.command(record.benchmark), language=None)
