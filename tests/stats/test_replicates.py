"""Replicates of many runs at once are those of each alone, and packing them loses nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from harness.stats import inference, replicates
from helpers.runs import answers


@pytest.mark.parametrize(("groups", "labels", "known"), [(40, 4, True), (40, 4, False), (7, 2, True), (1, 3, True)])
def test_replicates_of_many_runs_at_once(groups: int, labels: int, known: bool) -> None:
    """Against `stats.summarise` of each run alone; some answers are missing."""
    rng = np.random.default_rng(0)
    gold = rng.integers(0, labels, 60)
    frame = (
        answers(8)
        .iloc[[0] * 60]
        .assign(
            id=[f"e{k}" for k in range(60)],
            group=[f"g{g}" for g in rng.integers(0, groups, 60)],
            gold=gold.astype("int32"),
        )
    )
    chosen_rn = rng.integers(-1, labels, (5, 60)).astype(np.int16)
    order = replicates.ExampleOrder()

    key, _ = order.take(pa.Table.from_pandas(frame.assign(chosen=chosen_rn[0]), preserve_index=False))
    drawn = replicates.replicate_all(order.sets[key], chosen_rn, labels if known else None, inference.METRICS)
    names = [str(k) for k in range(labels)] if known else None
    for r, chosen in enumerate(chosen_rn):
        alone = inference.summarise(frame.assign(chosen=chosen), names)
        for metric, of_runs in drawn.items():
            draws = None if of_runs.replicates_rn is None else of_runs.replicates_rn[r]
            found = inference.interval(float(of_runs.points_r[r]), draws)
            wanted = alone[metric]
            assert [found.value, found.low, found.high] == pytest.approx(
                [wanted.value, wanted.low, wanted.high], abs=1e-7
            )


def test_packing_loses_nothing() -> None:
    examples_per_replicate = np.full(replicates.RESAMPLES, 7)
    right_rn = np.random.default_rng(0).integers(0, 8, (3, replicates.RESAMPLES))
    replicates_rn = right_rn / examples_per_replicate
    rounded_rn = replicates.as_stored("macro_f1", replicates_rn)
    for metric, given_rn in (("accuracy", replicates_rn), ("macro_f1", rounded_rn)):
        rows = [replicates.encode(metric, replicates_n, examples_per_replicate) for replicates_n in given_rn]
        column = pa.chunked_array([replicates.to_column(metric, [*rows, None])])
        assert column.null_count == 1
        assert (replicates.from_column(metric, column.slice(0, 3), examples_per_replicate) == given_rn).all()
    for chosen in ([-1, 0, 127], [-1, 0, 128]):
        one = replicates.pack_choices(np.array(chosen, dtype=np.int16))
        assert replicates.unpack_choices([one], 3).tolist() == [chosen]
