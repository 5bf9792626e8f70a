"""The model-free rows: what they answer, and that they are the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.api import Example
from harness.controls import control_runs
from harness.errors import DataError
from harness.record import Data, Provenance
from harness.store import Store

PROVENANCE = Provenance(package="0", code="c0de", started="2026-01-01T00:00:00Z", finished="2026-01-01T00:00:00Z")
DATA = Data(revision="1", fingerprint="0123456789abcdef", sizes={"train": 4, "test": 4}, options=["no", "yes"])


def examples(golds: list[int], options: int = 2) -> list[Example]:
    return [
        Example(f"e{k}", f"i{k}", b"", "Is it?", "It is.", tuple("abcd"[:options]), gold, "object", "toy")
        for k, gold in enumerate(golds)
    ]


def test_majority_of_train_not_of_test() -> None:
    splits = {"test": examples([0, 0, 0, 1])}
    (majority, answers), _ = control_runs("toy", "factuality", [1, 1, 0], splits, DATA, PROVENANCE)
    assert answers["chosen"].tolist() == [1, 1, 1, 1]
    assert majority.metrics["test"]["accuracy"].value == 1 / 4
    # Label 0 is never chosen: F1 0. Label 1: 2 * 1 / (1 + 4).
    assert majority.metrics["test"]["macro_f1"].value == pytest.approx((0 + 2 / 5) / 2)
    # One added to each count: (1 + 1) and (2 + 1) of 5.
    assert np.exp(answers["scores"][0]).tolist() == pytest.approx([2 / 5, 3 / 5])


def test_the_first_of_equals_and_the_places_that_exist() -> None:
    """Train golds at places 0, 1, 3, 3: place 3; where there are two options only, the first of 0 and 1."""
    mixed = examples([0], options=4) + examples([1], options=2)
    data = DATA.model_copy(update={"options": None})
    (_, answers), _ = control_runs("toy", "factuality", [0, 1, 3, 3], {"test": mixed}, data, PROVENANCE)
    assert answers["chosen"].tolist() == [3, 0]


def test_random_is_uniform_and_the_same_every_time() -> None:
    splits = {"test": examples([0] * 4000, options=4), "ood": examples([0] * 4000, options=4)}
    data = DATA.model_copy(update={"options": None})
    first, second = (control_runs("toy", "factuality", [0], splits, data, PROVENANCE, 100)[1] for _ in range(2))
    assert first[0] == second[0]
    assert first[1]["chosen"].equals(second[1]["chosen"])
    counts = first[1].groupby("split")["chosen"].value_counts()
    assert counts.between(1000 - 110, 1000 + 110).all()  # 4 standard deviations of B(4000, 1/4)
    test, ood = (first[1].loc[first[1]["split"] == split, "chosen"].tolist() for split in splits)
    assert test != ood


def test_records_fit_the_store(tmp_path: Path) -> None:
    store, splits = Store(tmp_path), {"test": examples([0, 1])}
    for record, predictions in control_runs("toy", "factuality", [0], splits, DATA, PROVENANCE):
        store.write(record, predictions)
        assert store.read(record.run_id).model_copy(update={"seal": None}) == record
        assert (record.kind, record.status, record.parameters) == ("control", "done", 0)
    assert store.ids() == ["control-majority-toy-0123456789ab", "control-random-toy-0123456789ab"]


def test_no_data() -> None:
    with pytest.raises(DataError, match="'toy': the train split has no examples"):
        control_runs("toy", "factuality", [], {"test": examples([0])}, DATA, PROVENANCE)
    with pytest.raises(DataError, match="no predictions"):
        control_runs("toy", "factuality", [0], {"test": []}, DATA, PROVENANCE)
