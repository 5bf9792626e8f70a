"""The leaderboard, trade-off and compare pages without a browser: what they say where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from harness.store import Store
from harness.store.packed.pack import pack
from helpers import runs
from helpers.runs import add, configured

Open = Callable[..., AppTest]


def said(app: AppTest) -> str:
    kinds: tuple[Any, ...] = (app.markdown, app.caption, app.info, app.warning, app.error, app.code)
    texts = [str(element.value) for elements in kinds for element in elements]
    return "\n".join(texts).replace("\\", "").replace("\u2060", "")


def test_a_store_whose_runs_all_failed(tmp_path: Path, opened: Open) -> None:
    add(Store(tmp_path), status="failed", data=None)
    for page in ("leaderboard", "trade_off"):
        assert "No run has been scored yet" in said(opened(page))
    assert "No finished run to compare yet" in said(opened("compare"))


def test_what_the_url_asks_for_and_is_not_there(tmp_path: Path, opened: Open) -> None:
    store = Store(tmp_path)
    add(store, "a", 8)
    add(store, "b", 4)
    assert "Best for student S: a, 100.0" in said(opened("leaderboard", page="-1"))
    for name in ("leaderboard", "trade_off", "compare", "examples"):
        text = said(opened(name, benchmark="none like it"))
        assert "the address asks for benchmark 'none like it', which isn't here; known:" in text
        assert "100.0" not in text
    assert "asks for metric 'x', which isn't here" in said(opened("leaderboard", metric="x"))
    assert "asks for run 'nope', which isn't here" in said(opened("examples", run="nope"))
    assert "asks for run 'nope', which isn't here" in said(opened("run", run="nope"))
    assert "No row matches these filters" in said(opened("leaderboard", method="nope", controls="false"))
    assert "No row matches these filters" in said(opened("leaderboard", q="zzz"))
    text = said(opened("leaderboard", q="b"))
    assert "1 of 2 rows are shown; ranks, tiers and Holm p are among all rows." in text
    assert "Best for student S: b, 50.0" in text
    text = said(opened("leaderboard", q="b", among="true"))
    assert "1 of 2 rows are shown; ranks, tiers and Holm p are among the rows that are shown." in text
    assert "There is no row 'c@S' here to compare with" in said(opened("leaderboard", baseline="c@S"))
    assert "asks for A '../../etc/passwd', which isn't here" in said(opened("compare", a="../../etc/passwd"))


def test_runs_in_the_url_that_do_not_belong_together(tmp_path: Path, opened: Open) -> None:
    store = Store(tmp_path)
    other = runs.DATA.model_copy(update={"fingerprint": "b" * 64})
    ids = [add(store, "a", 8, seed).name for seed in range(5)]
    far = add(store, "b", 4, benchmark="toy2", data=other).name
    assert f"A {ids[0]} is on toy, B {far} is on toy2" in said(opened("compare", a=ids[0], b=far))
    assert "A, b (S)" not in said(opened("compare", a=far, benchmark="toy"))  # the runs say which data
    text = said(opened("examples", run=[ids[0], far]))
    assert f"{ids[0]} is on toy, {far} is on toy2: choose" in text.replace(";", ":")
    assert "asks for 5 runs: expected at most 4" in said(opened("examples", run=ids))


def test_one_row_cannot_be_compared(tmp_path: Path, opened: Open) -> None:
    add(Store(tmp_path), "a", 8)
    assert "there is only one here" in said(opened("compare"))


def test_a_cost_that_no_row_has(tmp_path: Path, opened: Open) -> None:
    add(Store(tmp_path), "a", 8)
    assert "No ranked row has this cost (memory)" in said(opened("trade_off", cost="memory"))


def test_labels_common_settings_and_forwards_are_shown_and_filtered(tmp_path: Path, opened: Open) -> None:
    store = Store(tmp_path)
    train = {"examples": 4096, "lr": 0.01}
    configured(store, "a", "offline_kd", 8, given={"alpha": 3.0}, train=train, label="KD on the pool")
    configured(store, "b", "finetune", 4, forwards=32, train=train)
    text = said(opened("leaderboard"))
    assert "Best for student S: KD on the pool, 100.0" in text
    assert "All runs: train.examples=4096 train.lr=0.01; other settings are the defaults." in text
    assert "forward passes of the student per answer (1 or 4)" in text
    assert "1 of 2 rows are shown; ranks" in said(opened("leaderboard", forwards="4.0"))
    assert "There is no row" not in said(opened("leaderboard", baseline="offline_kd alpha=3.0@S"))


@pytest.mark.parametrize(
    "page", ["leaderboard", "trade_off", "compare", "run", "examples", "ablation", "sweep", "about"]
)
def test_pages_open_a_packed_store(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    store = Store(tmp_path / "runs")
    add(store, "a", 8)
    add(store, "b", 4)
    pack(store, tmp_path / "runs.tar.xz")
    monkeypatch.setenv("HKDBENCH_CACHE", str(tmp_path / "cache"))
    texts = []
    for place in ("runs", "runs.tar.xz"):
        monkeypatch.setenv("HKDBENCH_STORE", str(tmp_path / place))
        texts.append(said(opened(page)).replace("runs.tar.xz", "runs"))
    assert texts[0] == texts[1]
