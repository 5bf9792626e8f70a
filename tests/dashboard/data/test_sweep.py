"""The trials of a sweep, on numbers checkable by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dashboard.data import sweep
from harness.record import Interval
from helpers import runs


def trial(number: int, accuracy: float, **settings: object) -> object:
    ended = runs.provenance(f"2026-01-01T00:{number:02d}Z")
    found = runs.record(run_id=f"t{number}", settings=settings, train={"lr": 0.1}, provenance=ended)
    return found.model_copy(update={"metrics": {"validation": {"accuracy": Interval(value=accuracy)}}})


def test_trials_stand_in_the_order_of_their_ends_with_the_best_so_far() -> None:
    found = [trial(2, 0.4, alpha=1.0, same=1), trial(1, 0.5, alpha=2.0, same=1), trial(3, 0.7, alpha=1.0, same=1)]
    # equal settings and seeds: two trials
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    assert frame["run"].tolist() == ["t1", "t2", "t3"]
    assert frame["best"].tolist() == pytest.approx([50, 50, 70])
    assert sweep.settings(frame) == ["alpha"]
    assert frame["alpha"].tolist() == [2.0, 1.0, 1.0]
    lower = sweep.trials(found, "validation", "nll")  # type: ignore[arg-type]
    assert lower["value"].isna().all()


def test_runs_that_confirm_are_no_trials() -> None:
    tagged = [trial(1, 0.5, alpha=1.0), trial(2, 0.6, alpha=2.0), trial(3, 0.4, alpha=2.0), trial(4, 0.45, alpha=1.0)]
    for record, tag in zip(tagged, ("trial", "trial", "finalist", "winner"), strict=True):
        record.tags.append(tag)  # type: ignore[attr-defined]
    searched, confirming = sweep.split_confirming(tagged)  # type: ignore[arg-type]
    assert [r.run_id for r in searched] == ["t1", "t2"]
    found = sweep.confirming_runs(confirming, "accuracy")
    assert found[["run", "role"]].values.tolist() == [["t4", "winner"], ["t3", "finalist"]]
    assert found["validation"].tolist() == pytest.approx([45, 40])
    assert found["test"].isna().all()
    assert sweep.split_confirming(searched)[0] == searched


def test_seeds_of_a_trial_are_one_trial_and_known_ones_keep_their_numbers() -> None:
    one, two = trial(1, 0.4, alpha=1.0), trial(2, 0.6, alpha=1.0).model_copy(update={"seed": 1})  # type: ignore[attr-defined]
    three = trial(3, 0.7, alpha=2.0)
    frame = sweep.trials([one, two, three], "validation", "accuracy")  # type: ignore[list-item]
    assert frame["value"].tolist() == pytest.approx([50, 70])
    assert frame["seeds"].tolist() == ["0, 1", "0"]
    stopped = sweep.SweepTrial(9, {"settings.alpha": 3.0}, "stopped", 0.3, 1, (), "")
    known = sweep.SweepTrial(4, {"settings.alpha": 2.0}, "done", 0.7, 4, ("t3",), "")
    frame = sweep.trials([one, two, three], "validation", "accuracy", [stopped, known])  # type: ignore[list-item]
    assert frame["number"].tolist() == [4, 9, 10]
    assert frame["alpha"].tolist() == [2.0, 3.0, 1.0]
    assert frame["value"].isna().tolist() == [False, True, False]
    assert sweep.in_words(frame.iloc[0].to_dict(), ["alpha"]) == "alpha = 2"


def test_two_settings_together_are_means_of_fields() -> None:
    settings = [(0.1, "a"), (0.1, "a"), (10.0, "b")]
    found = [trial(k, 0.2 * (k + 1), lr=lr, kind=kind) for k, (lr, kind) in enumerate(settings)]
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    fields = sweep.grid(frame, "lr", "kind")
    assert fields[["x", "y", "trials"]].values.tolist() == [["0.1", "a", 2], ["10", "b", 1]]
    assert fields["value"].tolist() == pytest.approx([30, 60])
    assert sweep.ranges(frame, "lr") == ["0.1", "10"]
    many = pd.DataFrame({"value": 1.0, "alpha": [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]})
    assert sweep.ranges(many, "alpha") == ["10 to 11", "11 to 12", "12 to 13", "13 to 14", "14 to 15"]


def test_importance_finds_the_setting_that_matters() -> None:
    rng = np.random.default_rng(0)
    found = [
        trial(k, 0.3 + 0.3 * (k % 2) + 0.01 * rng.random(), kind="ab"[k % 2], noise=float(rng.random()))
        for k in range(24)
    ]
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    table = sweep.importance(frame).set_index("setting")
    assert table.loc["kind", "share"] > 99
    assert table.loc["noise", "share"] <= table.loc["noise", "threshold"]
    assert not len(sweep.importance(frame[:3]))


def test_the_share_of_variance_by_hand() -> None:
    """Groups {0, 1} and {3, 4}: within 0.5 + 0.5 of all 10, so 1 - (1 / 2) / (10 / 3)."""
    assert sweep._share(np.array([[0.0, 1.0, 3.0, 4.0]]), np.array([0, 0, 1, 1]))[0] == pytest.approx(0.85)


def test_parallel_axes() -> None:
    found = [trial(1, 0.5, lr=0.001, kind="b"), trial(2, 0.6, lr=0.1, kind="a"), trial(3, 0.7, lr=0.01, kind="a")]
    frame = sweep.trials(found, "validation", "accuracy")  # type: ignore[arg-type]
    lines, ticks = sweep.parallel(frame, ["lr", "kind"], "accuracy, %")
    at = lines.pivot(index="run", columns="axis", values="at")
    assert at["lr"].tolist() == pytest.approx([0, 1, 0.5])  # logarithms
    assert at["kind"].tolist() == [1, 0, 0]
    assert at["accuracy, %"].tolist() == pytest.approx([0, 0.5, 1])
    assert ticks[ticks["axis"] == "kind"]["shown"].tolist() == ["a", "b"]
