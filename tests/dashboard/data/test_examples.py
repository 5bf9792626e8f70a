"""Answers of several runs joined, filtered and put in order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dashboard.data import examples
from harness.errors import DataError
from harness.store.schemas import PredictionRow, predictions_frame


def predictions(*lines: tuple[str, int, int, list[float]]) -> pd.DataFrame:
    return predictions_frame(PredictionRow("test", i, i, "object", g, c, s, 0.0) for i, g, c, s in lines)


HALF, SURE = [0.0, 0.0], [float(np.log(0.9)), float(np.log(0.1))]


def two_runs() -> pd.DataFrame:
    a = predictions(("x", 0, 0, SURE), ("y", 0, 1, HALF), ("z", 1, 0, SURE))
    b = predictions(("z", 1, 1, HALF), ("x", 0, 0, HALF), ("y", 0, 1, []))
    return examples.together({"a": a, "b": b})


def test_runs_are_joined_by_example_in_the_order_of_the_first() -> None:
    whole = two_runs()
    assert whole["id"].tolist() == ["x", "y", "z"]
    assert whole["at 1"].tolist() == [1, 2, 0]
    assert whole["chosen 1"].tolist() == [0, 1, 1]
    assert examples.right(whole).tolist() == [[True, True], [False, False], [False, True]]
    assert whole["sure 0"].tolist() == pytest.approx([90, 50, 90])
    assert whole["sure 1"].isna().tolist() == [False, True, False]
    with pytest.raises(DataError, match="answered different examples"):
        examples.together({"a": predictions(("x", 0, 0, SURE)), "b": predictions(("y", 0, 0, SURE))})


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({}, "xyz"),
        ({"show": "some run is wrong"}, "yz"),
        ({"show": "every run is wrong"}, "y"),
        ({"show": "the runs disagree"}, "z"),
        ({"categories": ["other"]}, ""),
        ({"sure": (80.0, 100.0)}, "xz"),
        ({"words": ["Y"]}, "y"),
        ({"order": "least sure first"}, "yxz"),
        ({"show": "some run is wrong", "order": "surest first"}, "zy"),
    ],
)
def test_filters_and_orders(asked: dict[str, object], ids: str) -> None:
    assert "".join(examples.sift(two_runs(), **asked)["id"]) == ids  # type: ignore[arg-type]


def test_a_whole_id_is_that_example_alone() -> None:
    whole = examples.together({"a": predictions(("t-1", 0, 0, SURE), ("t-10", 0, 0, SURE))})
    assert examples.sift(whole, words=["t-1"])["id"].tolist() == ["t-1"]
    assert examples.sift(whole, words=["t"])["id"].tolist() == ["t-1", "t-10"]


def test_pages() -> None:
    whole = two_runs()
    assert [examples.page(whole, k, 2)["id"].tolist() for k in (1, 2, 99, -1)] == [["x", "y"], ["z"], ["z"], ["x", "y"]]
    assert examples.pages(whole, 2) == 2
    assert examples.pages(whole[:0], 2) == 1
