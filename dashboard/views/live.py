"""The page of runs in progress. Only a fragment of it is updated, every two seconds."""

from __future__ import annotations

import time

import pandas as pd
import streamlit as st

from dashboard.data import store
from dashboard.widgets import curves, dataframes, url_state
from dashboard.widgets.escape import plain
from harness.store import Problem, live
from harness.store.live import Now

SECONDS = 2
SHOWN = 20


def show() -> None:
    """The page."""
    st.title("Live", anchor=False)
    store.listing()  # shows an error if the store can't be read
    updating = url_state.toggle(f"Update every {SECONDS} seconds", "refresh", True)
    st.fragment(_now, run_every=SECONDS if updating else None)()


def _now() -> None:
    """Draws the running, paused and recently finished runs."""
    running = live.running(store.store())
    st.caption(
        f"Updated at {time.strftime('%H:%M:%S')}. Shows runs on this machine and on others that share the "
        "store's folder."
    )
    if not running:
        store.empty_state(
            "No run is in progress.",
            f"hkdbench run --method finetune --benchmark scenes_hallucination --store {store.store().url}",
        )
    for one in running[:SHOWN]:
        if isinstance(one, Problem):
            st.warning(plain(f"{one.run_id}: {one.message}"), icon=":material/warning:")
        else:
            _one(one, opened=len(running) == 1)
    if len(running) > SHOWN:
        st.caption(f"{len(running) - SHOWN} more runs, started earlier, are not shown.")
    _paused()
    _ended()


def _one(now: Now, opened: bool) -> None:
    with st.container(border=True):
        quiet = time.time() - now.updated
        badge = (
            f":orange-badge[:material/hourglass_empty: no progress for {_span(quiet)}]"
            if now.silent
            else ":green-badge[:material/play_circle: running]"
        )
        st.markdown(f"{badge} **{plain(now.run_id)}**")
        seed = f"student {now.student}, seed {now.seed}" + (f", {', '.join(now.tags)}" if now.tags else "")
        st.caption(plain(f"{now.method} on {now.benchmark}, {seed}; started {_span(time.time() - now.started)} ago"))
        stages = [_marked(stage, now) for stage in (*now.stages, "score")]
        st.markdown(" → ".join(stages))
        share = now.step / now.steps if now.steps else 0.0
        st.progress(min(max(share, 0.0), 1.0), text=plain(f"{now.stage}: step {now.step:,} of {now.steps:,}"))
        if now.silent:
            st.caption(
                "The run was stopped, or its steps take long. The same command resumes it from its last checkpoint."
            )
        history = live.history(store.store(), now)
        if len(history):
            with st.expander("Curves", expanded=opened, key=f"curves-{now.run_id}"):
                curves.draw_all(history, steps_so_far(now, history))


def steps_so_far(now: Now, history: pd.DataFrame) -> list[tuple[str, int]]:
    """The stages up to the current one, each with its number of steps as far as it is known."""
    reached = now.stages.index(now.stage) + 1 if now.stage in now.stages else len(now.stages)
    last = history.groupby("stage")["step"].max()
    return [(s, now.steps if s == now.stage else int(last.get(s, 0))) for s in now.stages[:reached]]


def _marked(stage: str, now: Now) -> str:
    """A stage's name with its status: done, running, pending."""
    order = [*now.stages, "score"]
    at = order.index(now.stage) if now.stage in order else len(order) - 1 if now.stage.startswith("score") else 0
    place = order.index(stage)
    sign = ":material/check:" if place < at else ":material/arrow_forward:" if place == at else ":material/schedule:"
    text = f"{sign} {plain(stage)}"
    return f"**{text}**" if place == at else text


def _paused() -> None:
    paused = live.paused(store.store())
    if not paused:
        return
    st.subheader("Paused runs", anchor=False)
    rows = [(one.run_id, one.checkpoint, _span(one.age)) for one in paused[:SHOWN]]
    dataframes.show_frame(pd.DataFrame(rows, columns=["run", "checkpoint", "age"]), "paused", "Paused runs")
    st.caption("The command that started a run resumes it from its checkpoint.")


def _ended() -> None:
    """Draws the runs that finished last."""
    ended = sorted((e for e in store.runs() if e.finished), key=lambda e: e.finished, reverse=True)[:5]
    if not ended:
        return
    st.subheader("Recent runs", anchor=False)
    frame = pd.DataFrame(
        [(e.run_id, e.status, e.problem or "", dataframes.format_time(e.finished)) for e in ended],
        columns=["run", "status", "problem", "finished"],
    )
    dataframes.show_frame(frame, "ended", "Recent runs", links={"run": ("run", "run", {})})


def _span(seconds: float) -> str:
    """A time as people say it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
