"""Further columns of a ranking: the difference to direct tuning, cost, distillation, and statistical power.

Every row is compared with the same student tuned directly; `distil` compares it with a teacher, too. Unless `--teacher`
and `--baseline` name rows, these are rows of `finetune` on the same ladder, with the same budget if possible: the
teacher is the largest rung above the row's own, the student the row's own rung; of several settings the best one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from harness.leaderboard import inference
from harness.leaderboard.inference import matches
from harness.leaderboard.schema import COSTS, TUNED, Delta, DirectTuning, Distilled, Filters, Power, Row
from harness.leaderboard.seed_results import SeedResults
from harness.record import Interval
from harness.stats import distillation, power
from harness.stats.inference import holm
from harness.stats.metrics import LOWER_IS_BETTER
from harness.stats.replicates import Examples

ResultsByRow = Mapping[tuple[str, ...], SeedResults]
"""The results of rows by seed, with the rows' run ids as keys."""


def with_pareto(rows: Sequence[Row]) -> list[Row]:
    """The rows with the costs for which they are on the Pareto front, see `distillation.pareto`; runs only."""
    sign = -1 if rows and rows[0].metric.rpartition(":")[2] in LOWER_IS_BETTER else 1
    runs = [row for row in rows if row.kind == "run"]
    scores = [None if row.figure is None else sign * row.figure for row in runs]
    fronts = {cost: distillation.pareto(scores, [getattr(row, cost) for row in runs]) for cost in COSTS}
    found = iter(tuple(cost for cost in COSTS if fronts[cost][k]) for k in range(len(runs)))
    return [row.model_copy(update={"pareto": next(found)}) if row.kind == "run" else row for row in rows]


# ------------------------------------------------------------------------------------------- direct tuning


def with_direct(rows: Sequence[Row], beside: Sequence[Row], results: ResultsByRow) -> list[Row]:
    """The runs of a table with their difference to the same student tuned directly (in the table or in `beside`)."""
    everyone = inference.best_first([*rows, *beside])
    found: dict[int, tuple[Row, Delta | None]] = {}
    for k, row in enumerate(rows):
        base = _baseline(row, everyone, None) if row.kind == "run" and row.method != TUNED else None
        if base is not None and row.figure is not None:
            sides = [results.get(one.run_ids, SeedResults()) for one in (row, base)]
            found[k] = base, inference.delta(sides[0], sides[1], row.metric)
    of_student: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for k, (_, difference) in found.items():
        if difference is not None and difference.p is not None:
            of_student[rows[k].ladder, rows[k].student][k] = difference.p
    corrected = {k: p for one in of_student.values() for k, p in zip(one, holm(list(one.values())), strict=True)}
    result = list(rows)
    for k, (base, difference) in found.items():
        direct = DirectTuning(
            label=base.label,
            figure=base.figure or 0.0,
            train_tflops=base.train_tflops,
            forwards_per_answer=base.forwards_per_answer,
            difference=difference and difference.model_copy(update={"p_holm": corrected.get(k)}),
        )
        result[k] = rows[k].model_copy(update={"direct": direct})
    return result


# ------------------------------------------------------------------------------------------- distillation


def with_distil(
    rows: Sequence[Row],
    everyone: Sequence[Row],
    results: ResultsByRow,
    examples: Mapping[str, Examples],
    filters: Filters,
) -> list[Row]:
    """The runs among `rows` with their distillation figures, if there is a teacher in `everyone`, rows included."""
    everyone = inference.best_first(everyone)
    result = []
    for row in rows:
        teacher, baseline = _teacher(row, everyone, filters.teacher), _baseline(row, everyone, filters.baseline)
        if row.kind == "run" and teacher is not None and teacher is not row and row.figure is not None:
            sides = [results.get(one.run_ids, SeedResults()) if one else None for one in (row, teacher, baseline)]
            found = _distilled(row, teacher, baseline, sides, examples)
            row = row if found is None else row.model_copy(update={"distil": found})
        result.append(row)
    return result


def _teacher(row: Row, rows: Sequence[Row], name: str | None) -> Row | None:
    if name is not None:
        return next((one for one in rows if matches(one, name)), None)
    larger = [one for one in _tuned(row, rows) if (one.parameters or 0) > (row.parameters or 0)]
    most = max((one.parameters or 0 for one in larger), default=0)
    return next((one for one in larger if one.parameters == most), None)


def _baseline(row: Row, rows: Sequence[Row], name: str | None) -> Row | None:
    if name is not None:
        return next((one for one in rows if matches(one, name)), None)
    return next((one for one in _tuned(row, rows) if one.student == row.student), None)


def _tuned(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The directly tuned rows of the row's ladder; only those of its own budget if there are any."""
    found = [one for one in rows if one.method == TUNED and one.ladder == row.ladder and one.figure is not None]
    return [one for one in found if one.budget == row.budget] or found


def _distilled(
    row: Row,
    teacher: Row,
    baseline: Row | None,
    sides: Sequence[SeedResults | None],
    examples: Mapping[str, Examples],
) -> Distilled | None:
    mine, theirs, direct = sides
    assert mine is not None
    assert theirs is not None
    seeds = inference.shared_seeds([mine, theirs])
    if not seeds:
        return None
    shares = shares_of(mine, theirs, seeds, examples[mine.examples])
    shares["agreement"] = shares.pop("same")
    found = Distilled(teacher=_name(teacher), baseline=_name(baseline) if baseline else None, **shares)
    if baseline is None or direct is None:
        return found.model_copy(update={"why": "no directly tuned student"})
    if baseline is row or baseline is teacher:
        return found
    if not (seeds := inference.shared_seeds([mine, direct, theirs], row.metric)):
        return found.model_copy(update={"why": f"can't be paired with teacher and tuned student in {row.metric}"})
    points, replicates = zip(
        *(inference.of_seeds(side, seeds, row.metric) for side in (mine, direct, theirs)), strict=True
    )
    drawn = [drawn_ns for drawn_ns in replicates if drawn_ns is not None]
    closed = distillation.gap_closed(
        np.stack(points),
        np.stack(drawn) if len(drawn) == 3 else None,
        mine.groups,
        inference.prior_of_pair(theirs, direct, row.metric),
    )
    return found.model_copy(update={"gap_closed": closed.closed, "gap": closed.gap, "why": closed.why})


def shares_of(a: SeedResults, b: SeedResults, seeds: Sequence[int], examples: Examples) -> dict[str, Interval]:
    """`distillation.shares` of two rows that were read with their choices."""
    chosen_a, chosen_b = (inference.choices_of(side, seeds) for side in (a, b))
    return distillation.shares(chosen_a, chosen_b, examples.gold_n, *examples.grouped)


# ------------------------------------------------------------------------------------------------- power


def with_power(rows: Sequence[Row], results: ResultsByRow) -> list[Row]:
    """The runs of a table with their power to be distinguished from the baseline, or else from the row above."""
    base = next((row for row in rows if row.baseline), None)
    above: Row | None = None
    result = []
    for row in rows:
        against = base or above
        if row.kind == "run" and row.figure is not None:
            above = row
            found = None if against is None or against is row else _power(row, against, results)
            row = row if found is None else row.model_copy(update={"power": found})
        result.append(row)
    return result


def _power(row: Row, against: Row, results: ResultsByRow) -> Power | None:
    mine, other = (results.get(one.run_ids, SeedResults()) for one in (row, against))
    seeds = inference.shared_seeds([mine, other], row.metric)
    if not seeds:
        return None
    found, off = inference.noise(mine, other, seeds, row.metric), inference.difference(mine, other, row.metric)
    if found is None or off is None:
        return None
    return Power(against=_name(against), **asdict(power.power_report(found, off.value)))


def _name(row: Row) -> str:
    return f"{row.label}@{row.student}" if row.student else row.label
