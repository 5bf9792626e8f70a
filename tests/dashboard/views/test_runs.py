"""The page of all runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from harness.record import Failure
from harness.store import Store
from helpers.runs import add

Open = Callable[..., AppTest]


def said(app: AppTest) -> str:
    kinds: tuple[Any, ...] = (app.markdown, app.caption, app.info, app.error, app.code)
    texts = [str(element.value) for elements in kinds for element in elements]
    return "\n".join(texts).replace("\\", "").replace("\u2060", "")


def test_a_failed_seed_is_two_clicks_from_its_error(tmp_path: Path, opened: Open) -> None:
    store = Store(tmp_path)
    add(store, "a", 8, seed=0)
    error = Failure(type="TrainingError", message="the loss is not finite: lower train.lr", stage="tune", step=7)
    add(store, "a", seed=1, status="failed", error=error)
    text = said(opened("runs"))
    assert "2 of 2 runs: 1 done, 1 failed" in text
    assert "1 of 2 runs: 1 failed" in said(opened("runs", status="failed"))
    assert "1 of 2 runs" in said(opened("runs", q="finite"))
    app = opened("runs", q="nothing like it", size="S")
    assert "No run matches" in said(app)
    app.button[0].click().run()  # what came along from other pages is removed, too
    assert "2 of 2 runs" in said(app)
    assert "size" not in app.query_params
    assert "2 of 2 runs" in said(opened("runs", benchmark="All benchmarks"))
    assert "2 of 2 runs" in said(opened("runs", by="method"))
    text = said(opened("run", run="a-S-1"))
    assert "lower train.lr" in text
    assert "runs it again" in text
    assert "Other seeds:" in text
