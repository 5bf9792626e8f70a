"""What the page of a run is made of, on numbers checkable by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dashboard.data import run
from harness.record import Interval, RoleRecord, StageRecord
from harness.store.schemas import HistoryRow, PredictionRow, history_frame, predictions_frame
from helpers import runs


def predictions(*lines: tuple[str, int, int, list[float]]) -> pd.DataFrame:
    return predictions_frame(PredictionRow("test", i, i, "object", g, c, s, 0.0) for i, g, c, s in lines)


HALF, SURE = [0.0, 0.0], [float(np.log(0.9)), float(np.log(0.1))]


def test_steps_are_counted_over_all_stages() -> None:
    rows = [("a", 2), ("a", 4), ("b", 1), ("b", 3), ("gone", 1)]
    history = history_frame(HistoryRow(s, k, 0.0, "student", "loss/ce", 1.0) for s, k in rows)
    assert run.curves(history, [("a", 4), ("b", 3)])["at"].tolist() == [2, 4, 5, 7]
    terms = pd.DataFrame({"term": ["loss/kd", "validation/accuracy", "loss/ce"]})
    assert run.terms(terms) == ["validation/accuracy", "loss/ce", "loss/kd"]


def test_stages_with_their_roles() -> None:
    roles = {"student": RoleRecord(weights="S", trainable=True, parameters=5), "teacher": RoleRecord(
        weights="tune.teacher", trainable=False, parameters=9)}  # fmt: skip
    stage = StageRecord(name="kd", share=1.0, steps=4, examples=8, roles=roles, best={"student": 0.75})
    frame = run.stages(runs.record(stages=[stage]))
    assert frame[["role", "initialised from", "trained"]].values.tolist() == [
        ["student", "S", "yes"],
        ["teacher", "tune.teacher", "no (frozen)"],
    ]
    assert frame["best validation accuracy, %"].tolist()[0] == 75.0
    assert pd.isna(frame["best validation accuracy, %"].tolist()[1])


def test_settings_say_which_were_set_by_hand() -> None:
    record = runs.record(settings={"alpha": 2.0})
    record = record.model_copy(update={"settings": {"alpha": 2.0, "soft": True}})
    assert run.settings(record).values.tolist() == [["alpha", "2.0", "yes"], ["soft", "true", ""]]


def test_figures_have_their_units_and_categories_a_table_of_their_own() -> None:
    metrics = {
        "test": {
            "accuracy": Interval(value=0.5, low=0.25, high=0.75),
            "accuracy/object": Interval(value=1.0),
            "nll": Interval(value=0.7),
            "official:f1": Interval(value=61.0),
        }
    }
    record = runs.record().model_copy(update={"metrics": metrics})
    frame = run.figures(record, "test").set_index("metric")
    assert frame.loc["accuracy", ["value", "low", "high"]].tolist() == [50, 25, 75]
    assert frame["value"].tolist() == [50, 0.7, 61]
    assert frame.loc["official:f1", "unit"] == "defined by the protocol"
    by_category = run.categories(record, "test", predictions(("a", 0, 0, HALF), ("b", 0, 0, HALF)))
    assert by_category[["category", "value", "examples"]].values.tolist() == [["object", 100.0, 2]]
    assert list(run.headline(record)) == [("test accuracy, %", "50.0 [25.0, 75.0]")]


def test_confusion_counts_what_was_chosen_where_what_was_right() -> None:
    frame = predictions(("a", 0, 0, HALF), ("b", 0, 1, HALF), ("c", 1, 1, HALF), ("d", 1, -1, HALF))
    found = run.confusion(frame, ["no", "yes"])
    assert found[["gold", "chosen", "count"]].values.tolist() == [
        ["no", "no", 1],
        ["no", "yes", 1],
        ["no", "no answer", 0],
        ["yes", "no", 0],
        ["yes", "yes", 1],
        ["yes", "no answer", 1],
    ]
    assert found["share"].tolist() == [0.5, 0.5, 0, 0, 0.5, 0.5]
    assert run.confusion(frame, None)["gold"].unique().tolist() == ["A", "B"]


def test_calibration_is_binned_as_the_ece_is() -> None:
    frame = predictions(("a", 0, 0, SURE), ("b", 0, 0, SURE), ("c", 0, 1, [SURE[1], SURE[0]]), ("d", 1, 1, HALF))
    found = run.calibrated(frame)
    assert found["examples"].tolist() == [1, 3]
    assert found["confidence"].tolist() == pytest.approx([50, 90])
    assert found["accuracy"].tolist() == pytest.approx([100, 200 / 3])
    assert ((found["low"] < found["accuracy"]) & (found["accuracy"] <= found["high"])).all()
    assert not len(run.calibrated(predictions(("a", 0, 0, SURE), ("b", 0, 0, []))))


def test_wilsons_interval() -> None:
    """8 of 10: 0.490 to 0.943 (Agresti and Coull 1998, by the formula)."""
    assert run.wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert run.wilson(0.0, 10)[0] == 0
    assert run.wilson(1.0, 3)[1] == 1
