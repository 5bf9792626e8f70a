"""The sweep page: which settings matter, which are best, and the runs of the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import navigation
from dashboard.data import store, sweep
from dashboard.widgets import charts, curves, dataframes, url_state
from dashboard.widgets.escape import plain
from harness.errors import StoreError
from harness.record import Record
from harness.report.columns import has_own_unit, lower_is_better, with_unit
from harness.store.index import RunSummary

MOST = 2000
"""At most this many runs are loaded, the newest ones."""
FIELDS = ("benchmark", "method", "student")
"""What a search of a sweep has one of."""
SLICES = 12
TABLED = 100
MOST_CURVES = 200
ABOVE, BELOW = "above the threshold", "below the threshold"


def show() -> None:
    """The page."""
    st.title("Sweep", anchor=False)
    if not store.has_runs():
        return
    runs = [e for e in store.runs() if e.kind == "run" and e.student and sweep.sweeps([e])]
    if not runs:
        store.empty_state("No sweep in this store yet.", f"hkdbench sweep SWEEP.toml --store {store.store().url}")
        return
    name, chosen = _choose(runs)
    records = _records(tuple(e.run_id for e in chosen), store.listing().key)
    first = chosen[0]
    try:
        search = sweep.outcome(store.store(), name, first.method, first.student, first.benchmark)
    except StoreError as error:
        st.warning(plain(error), icon=":material/warning:")
        search = None
    known = search.trials if search else ()
    searched, confirming = sweep.split_confirming(records)
    splits = [s for s in ("validation", "test", "ood") if any(s in r.metrics for r in searched)]
    if not splits:
        st.info("None of these runs has finished yet.", icon=":material/inbox:")
        return
    split, metric = _figure(searched, splits)
    frame = sweep.trials(searched, split, metric, known)
    names = sweep.settings(frame)
    done = frame[frame["value"].notna()]
    if len(done) < 2 or not names:
        store.empty_state(
            f"Nothing to compare yet: finished trials: {len(done)}, settings that differ between them: {len(names)}.",
            f"hkdbench sweep SWEEP.toml --store {store.store().url}",
        )
        return
    title = _title(split, metric)
    best = _summary(frame, names, metric, title, bool(known))
    if search:
        _winner(search, metric)
    if confirming:
        _confirmed(confirming, metric)
    important = sweep.importance(frame)
    ordered = important["setting"].tolist() or names
    ordered += [name for name in names if name not in ordered]
    left, right = st.columns([1, 1], gap="large")
    with left:
        _best_so_far(frame, metric, title)
    with right:
        _importance(important)
    _curves(
        frame, known, {best: charts.strong()} | ({search.winner: charts.ORANGE} if search and search.winner else {})
    )
    _parallel(frame, ordered[: sweep.AXES - 1], metric, title)
    if len(ordered) > 1:
        _together(frame, ordered, metric, title)
    _slices(frame, ordered[:SLICES], title)
    _table(frame, ordered, metric, title)


# ------------------------------------------------------------------------------------------ choosing


def _choose(runs: Sequence[RunSummary]) -> tuple[str, list[RunSummary]]:
    """Choose a sweep and one of its searches: a benchmark, a method and a student. Returns its name and the runs."""
    columns = st.columns(4)
    with columns[0]:
        here = [e for e in runs if e.benchmark == st.query_params.get("benchmark")]
        usual = next(iter(sweep.sweeps(here)), None)  # of the benchmark that was chosen on another page
        name = url_state.select("Sweep", sweep.sweeps(runs), "sweep", usual)
    runs = [e for e in runs if f"{sweep.SWEEP}{name}" in e.tags]
    for column, field, key in zip(columns[1:], FIELDS, ("benchmark", "method", "size"), strict=True):
        with column:
            values = sorted({getattr(e, field) for e in runs})
            chosen = url_state.select(field.capitalize(), values, key, kept=True)
        runs = [e for e in runs if getattr(e, field) == chosen]
    return name, sorted(runs, key=lambda e: e.finished)[-MOST:]


@st.cache_resource(max_entries=8, show_spinner="Reading the trials…")
def _records(run_ids: tuple[str, ...], key: str) -> list[Record]:
    loaded = (store.store().load(run_id) for run_id in run_ids)
    return [record for record in loaded if isinstance(record, Record)]


def _figure(records: Sequence[Record], splits: list[str]) -> tuple[str, str]:
    left, right = st.columns([1, 2])
    with left:
        split = url_state.segmented("Split", splits, "split")
    with right:
        metric = url_state.select("Metric", sweep.metrics(records, split), "metric", kept=True)
    if split in ("test", "ood"):
        st.caption(
            "Choose settings on the validation split. Choosing them on this split makes its results too optimistic."
        )
    return split, metric


def _title(split: str, metric: str) -> str:
    return f"{split} {with_unit(metric)}"


def _summary(frame: pd.DataFrame, names: Sequence[str], metric: str, title: str, numbered: bool) -> int:
    """Says which trial is the best, and with which settings. Returns its number."""
    done = frame[frame["value"].notna()]
    best = done.sort_values("value", ascending=lower_is_better(metric), kind="stable").iloc[0]
    lost = frame[frame["value"].isna()]["status"].replace("done", "without a result").value_counts()
    more = "".join(f", {count} {status}" for status, count in lost.items())
    bounds = "" if pd.isna(best["low"]) else f" [{best['low']:.1f}, {best['high']:.1f}]"
    text = f"{len(frame)} trials{more}. Best trial: number {best['number']}, {best['value']:.4g}{bounds} ({title})"
    st.markdown(plain(f"{text}: {sweep.in_words(best.to_dict(), names)}."))
    with st.container(horizontal=True):
        navigation.link("run", f"Trial {best['number']}", run=best["run"])
        ranked = done.sort_values("value", ascending=lower_is_better(metric), kind="stable")
        navigation.link("runs", "Curves of the best 8", curve=list(ranked["run"][:8]))
    order = (
        ""
        if numbered
        else " Numbers: in the order in which they finished; those of `hkdbench sweep` are shown here "
        "when the search has ended."
    )
    st.caption(
        "The best of many trials looks better than it is, by chance: what counts is the winner over fresh seeds."
        + order
    )
    return int(best["number"])


def _winner(search: sweep.SweepSearch, metric: str) -> None:
    """Says which trial won over its fresh seeds, with the figures that the sweep computed."""
    if search.winner is None:
        return
    said = []
    factor = 1 if has_own_unit(metric) else 100
    for split, figures in search.figures.items():
        if (found := figures.get(metric)) is not None:
            bounds = "" if found.low is None or found.high is None else (
                f" [{factor * found.low:.1f}, {factor * found.high:.1f}]")  # fmt: skip
            said.append(f"{split} {factor * found.value:.1f}{bounds}")
    point = {key.removeprefix("settings."): value for key, value in search.winner_point.items()}
    seeds = len(search.winner_runs)
    st.success(
        plain(
            f"Winner, confirmed over {seeds} fresh seed{'' if seeds == 1 else 's'}: trial {search.winner} "
            f"({sweep.in_words(point, list(point))})"
            + (f"; {with_unit(metric)}: {', '.join(said)}" if said else "")
            + "."
        ),
        icon=":material/trophy:",
    )


def _confirmed(records: Sequence[Record], metric: str) -> None:
    """Draws the best trials' runs with new seeds."""
    st.subheader("Best trials with new seeds", anchor=False)
    found = sweep.confirming_runs(records, metric)
    forms = dict.fromkeys(found.columns[3:], "{:.2f}")
    dataframes.show_frame(
        found, "confirmed", f"{metric} of the best trials with new seeds", forms, {"run": ("run", "run", {})}
    )


# ------------------------------------------------------------------------------------------- charts


def _clicked(event: Any) -> None:
    """Opens the run whose point was clicked."""
    picked = event.selection.get("trial") if event else None
    if picked and picked[0].get("run"):
        navigation.go("run", run=picked[0]["run"])


def _best_so_far(frame: pd.DataFrame, metric: str, title: str) -> None:
    st.subheader("Best so far", anchor=False)
    done = frame[frame["value"].notna()]
    base = alt.Chart(done)
    x = alt.X("number:Q", title="trial", axis=alt.Axis(tickMinStep=1, tickCount=8))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    tips = ["run:N", "number:Q", *(alt.Tooltip(f"{c}:Q", format=".2f") for c in ("value", "low", "high"))]
    click = alt.selection_point(name="trial", fields=["run"], on="click")
    bars = base.mark_rule(color=charts.soft(), strokeWidth=1.5).encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q")
    points = base.mark_circle(color=charts.strong(), size=60, opacity=0.9, cursor="pointer").encode(
        x=x, y=y, tooltip=tips
    )
    line = base.mark_line(interpolate="step-after", color=charts.ORANGE, strokeWidth=2.5).encode(x=x, y="best:Q")
    chart = alt.layer(bars, line, points.add_params(click)).properties(height=300)
    label = f"{title} of {len(done)} trials in order; the best at the end is {frame['best'].iloc[-1]:.4g}"
    _clicked(charts.draw(chart, label, key="best-so-far", on_select="rerun", selection_mode="trial"))
    st.caption("Points: trials with 95 % intervals. Line: best so far. Click a point to open its run.")


def _curves(frame: pd.DataFrame, known: Sequence[sweep.SweepTrial], marked: dict[int, str]) -> None:
    """Draws the accuracy of every trial's student at its validations; a trial that was stopped ends in a cross."""
    st.subheader("Curves of all trials", anchor=False)
    stopped = {t.number: t for t in known if t.status == "stopped" and t.score is not None}
    parts: list[pd.DataFrame] = []
    for number, run_id, status in frame[["number", "run", "status"]].itertuples(index=False):
        if run_id and len(parts) < MOST_CURVES:
            try:
                values = sweep.validated(store.history(run_id))
            except StoreError:
                values = []
            if values:
                parts.append(
                    _curve(number, list(range(1, len(values) + 1)), values, "" if status == "done" else status)
                )
                continue
        if number in stopped:
            trial = stopped[number]
            parts.append(_curve(number, [trial.validations], [trial.score or 0.0], "stopped"))
    if not parts:
        st.caption("No trial has a curve.")
        return
    curves.over_each_other(
        pd.concat(parts, ignore_index=True), "validation/accuracy",
        {f"trial {number}": colour for number, colour in marked.items()}, "validations of the student",
    )  # fmt: skip
    st.caption(
        "The first seed of each trial. Coloured: the best trial and the winner. A cross: the trial was stopped there, "
        "behind the others, or failed."
    )


def _curve(number: int, at: list[int], values: list[float], ended: str) -> pd.DataFrame:
    return pd.DataFrame({"name": f"trial {number}", "at": at, "value": values, "ended": ended})


def _together(frame: pd.DataFrame, names: list[str], metric: str, title: str) -> None:
    """Draws the mean result over two settings, the two most important ones if the URL names no others."""
    st.subheader("Two settings together", anchor=False)
    left, right, _ = st.columns(3)
    with left:
        x = url_state.select("First setting", names, "x", names[0])
    others = [name for name in names if name != x]
    with right:
        y = url_state.select("Second setting", others, "y")
    found = sweep.grid(frame, x, y)
    weak, strong = ("#22303d", "#3f7fb0") if charts.dark() else ("#eef4fa", "#7fb3dc")
    shades = [strong, weak] if lower_is_better(metric) else [weak, strong]
    base = alt.Chart(found).encode(
        x=alt.X("x:N", title=x, sort=sweep.ranges(frame, x), axis=alt.Axis(labelAngle=0)),
        y=alt.Y("y:N", title=y, sort=sweep.ranges(frame, y)[::-1]),
        tooltip=["x:N", "y:N", alt.Tooltip("value:Q", title=title, format=".2f"), "trials:Q"],
    )
    tiles = base.mark_rect().encode(color=alt.Color("value:Q", title=title, scale=alt.Scale(range=shades, zero=False)))
    texts = base.mark_text(fontSize=12, color=charts.ink()).encode(text=alt.Text("value:Q", format=".1f"))
    charts.draw(
        alt.layer(tiles, texts).properties(height=max(160, 44 * found["y"].nunique() + 80)),
        f"Mean {title} of the trials by {x} and {y}: "
        + "; ".join(f"{r.x}, {r.y}: {r.value:.1f}" for r in found.itertuples(index=False)),
    )
    st.caption("Means of the trials in each field. An empty field: no finished trial has these values.")


def _importance(found: pd.DataFrame) -> None:
    st.subheader("Importance of settings", anchor=False)
    if not len(found):
        st.caption("This needs at least four finished trials and a setting with two values.")
        return
    shown = found.head(10).assign(mark=[ABOVE if s > t else BELOW for s, t in
                                        zip(found["share"], found["threshold"], strict=True)][:10])  # fmt: skip
    order = shown["setting"].tolist()
    scale = alt.Scale(domain=[ABOVE, BELOW], range=[charts.strong(), charts.GREY])
    base = alt.Chart(shown).encode(
        y=alt.Y("setting:N", title=None, sort=order),
        tooltip=[
            "setting:N",
            alt.Tooltip("share:Q", format=".1f"),
            alt.Tooltip("threshold:Q", format=".1f"),
            "values:Q",
        ],
    )
    bars = base.mark_bar(height={"band": 0.55}).encode(
        x=alt.X("share:Q", title="variance explained by the setting alone, %", scale=alt.Scale(domain=[0, 100])),
        color=alt.Color("mark:N", scale=scale, title=None, legend=alt.Legend(orient="top")),
    )
    tick = base.mark_tick(color=charts.ink(), thickness=3, height={"band": 0.75}).encode(x="threshold:Q")
    label = "; ".join(f"{r.setting} {r.share:.0f} (threshold {r.threshold:.0f})" for r in shown.itertuples())
    charts.draw(
        alt.layer(bars, tick).properties(height=max(150, 34 * len(shown) + 80)),
        f"Variance explained by each setting, per cent: {label}",
    )
    st.caption(
        "Adjusted R² of the trials' results given one setting. The tick is the threshold: a setting without effect "
        "stays below it with a probability of 95 %."
    )


def _parallel(frame: pd.DataFrame, names: list[str], metric: str, title: str) -> None:
    st.subheader("All trials", anchor=False)
    lines, ticks = sweep.parallel(frame, names, title)
    order = [*names, title]
    x = alt.X(
        "axis:N", sort=order, title=None, scale=alt.Scale(padding=0.35), axis=alt.Axis(labelAngle=0, labelLimit=170,
                                                                                       orient="top", domain=False)
    )  # fmt: skip
    y = alt.Y("at:Q", axis=None, scale=alt.Scale(domain=[-0.06, 1.06]))
    weak, strong = ("#2b4a63", "#b9e3ff") if charts.dark() else ("#c9dff0", "#08306b")
    shades = [strong, weak] if lower_is_better(metric) else [weak, strong]
    colour = alt.Color("value:Q", scale=alt.Scale(range=shades), legend=None)
    click = alt.selection_point(name="trial", fields=["run"], on="click")
    hover = alt.selection_point(name="near", fields=["run"], on="pointerover", clear="pointerout", empty=False)
    base = alt.Chart(lines).encode(x=x, y=y, detail="run:N", color=colour)
    tips = ["run:N", "axis:N", "shown:N", alt.Tooltip("value:Q", format=".4g")]
    drawn = base.mark_line(cursor="pointer").encode(
        strokeWidth=alt.condition(hover, alt.value(5), alt.value(2)),
        opacity=alt.condition(hover, alt.value(1), alt.value(0.65)),
        tooltip=["run:N", alt.Tooltip("value:Q", format=".4g")],
    )
    points = base.mark_circle(size=45, opacity=0.9, cursor="pointer").encode(tooltip=tips)
    ends = ticks.groupby("axis", as_index=False).agg(low=("at", "min"), high=("at", "max"))
    axes = alt.Chart(ends).mark_rule(color=charts.faint()).encode(x=x, y=alt.Y("low:Q", axis=None), y2="high:Q")
    labels = alt.Chart(ticks).encode(x=x, y=y, text="shown:N")
    halo = labels.mark_text(align="left", dx=8, fontSize=11.5, stroke=charts.paper(), strokeWidth=4)
    texts = labels.mark_text(align="left", dx=8, fontSize=11.5, color=charts.ink())
    chart = alt.layer(axes, drawn.add_params(hover), points.add_params(click), halo, texts).properties(height=380)
    label = f"Parallel coordinates of {lines['run'].nunique()} trials over {', '.join(names)} and {title}"
    _clicked(charts.draw(chart, label, key="parallel", on_select="rerun", selection_mode="trial"))
    st.caption(
        "Each line is a trial: its settings, most important first, and its result on the right. Stronger colours are "
        "better results. Click a point to open its run."
    )


def _slices(frame: pd.DataFrame, names: list[str], title: str) -> None:
    st.subheader("Result by setting", anchor=False)
    done = frame[frame["value"].notna()]
    for start in range(0, len(names), 3):
        for column, name in zip(st.columns(3, gap="medium"), names[start : start + 3], strict=False):
            with column:
                _slice(done, name, title)


def _slice(done: pd.DataFrame, name: str, title: str) -> None:
    part = done[["run", "value", "low", "high"]].assign(setting=done[name])
    number = sweep.is_number(done[name])
    if number:
        part = part[part["setting"].notna()].astype({"setting": float})
        kind: Literal["log", "linear"] = "log" if sweep.is_log(done[name]) else "linear"
        x = alt.X(
            "setting:Q",
            title=name,
            scale=alt.Scale(type=kind, zero=False, padding=12),
            axis=alt.Axis(tickCount=4, grid=False),
        )
    else:
        part["setting"] = ["not set" if v is None or v != v else str(v).lower() if isinstance(v, bool) else str(v)
                           for v in part["setting"]]  # fmt: skip
        x = alt.X("setting:N", title=name, axis=alt.Axis(labelAngle=0, labelLimit=110))
    base = alt.Chart(part).encode(x=x)
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    bars = base.mark_rule(color=charts.soft(), strokeWidth=1.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    points = base.mark_circle(color=charts.strong(), size=55, opacity=0.85).encode(
        y=y, tooltip=["run:N", "setting", alt.Tooltip("value:Q", format=".2f")]
    )
    charts.draw(alt.layer(bars, points).properties(height=230), f"{title} by {name} for {len(part)} trials")


def _table(frame: pd.DataFrame, names: list[str], metric: str, title: str) -> None:
    st.subheader("Trials", anchor=False)
    shown = frame[["number", "run", "status", "seeds", "value", "low", "high", *names]]
    ranked = shown.sort_values("value", ascending=lower_is_better(metric), kind="stable")
    forms = dict.fromkeys((title, "low", "high"), "{:.2f}")
    dataframes.show_frame(ranked[:TABLED].rename(columns={"value": title}), "trials", "Trials, best first", forms,
                 links={"run": ("run", "run", {})})  # fmt: skip
    if len(ranked) > TABLED:
        st.caption(f"The best {TABLED} of {len(ranked):,} trials. The CSV file has all of them.")
    st.download_button("Download as CSV", frame.to_csv(index=False), "trials.csv", "text/csv",
                       icon=":material/download:")  # fmt: skip
