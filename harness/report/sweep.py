"""A sweep as text: the best trials and winners of its searches, and its estimated cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.experiments.outcome import SweepResult, ranked
from harness.experiments.space import format_point
from harness.experiments.sweep import SweepConfig
from harness.report.format import plain
from harness.report.plan import total_price


def to_text(result: SweepResult) -> str:
    """The best trials and the winner of each search."""
    lines = []
    for found in result.searches.values():
        counts = {s: sum(t.status == s for t in found.trials) for s in ("done", "stopped", "failed")}
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        lines.append(f"{found.method} {found.student} on {found.benchmark}: {len(found.trials)} trials, {said}")
        lines += [f"  {t.score:.4f}  trial {t.number}: {format_point(t.point)}" for t in ranked(found.trials)[:5]]
        for one in found.finalists:
            score = "failed" if one.score is None else f"{one.score:.4f}"
            lines.append(f"  fresh seeds {score}  trial {one.number}: {format_point(one.point)}")
        if found.winner is not None:
            lines.append(f"  winner: trial {found.winner.number}: {format_point(found.winner.point)}")
            for split, figures in found.figures.items():
                lines += [f"    {split:10} {metric} {plain(value, 4)}" for metric, value in figures.items()]
    return "\n".join(lines)


def price_to_text(sweep: SweepConfig, searches: Sequence[Mapping[str, Any]]) -> str:
    """The space and the estimated cost of each search (from `selection.price`), and of all of them."""
    cached = sweep.train.cache == "auto"
    lines = []
    for row in searches:
        lines.append(f"{row['method']} {row['student']} on {row['benchmark']}: {row['trials']} trials ({sweep.search})")
        lines += ["  " + _dimension(name, dimension) for name, dimension in row["space"].items()]
        least = f", {row['least_flops'] / 1e12:.2f} with the teacher cache" if cached else ""
        lines.append(f"  {row['runs']} runs, {row['train_flops'] / 1e12:.2f} TFLOP{least}")
    runs, flops, least_flops = (sum(row[key] for row in searches) for key in ("runs", "train_flops", "least_flops"))
    least = f"; {least_flops / 1e12:.2f} if trials share their teachers" if cached else ""
    lines.append(f"{runs} runs, {flops / 1e12:.2f} TFLOP of training (estimated){least}{total_price(searches)}")
    return "\n".join(lines)


def _dimension(name: str, dimension: Mapping[str, Any]) -> str:
    """One line per dimension: `settings.alpha  uniform 0 to 3, when settings.divergence=jsd`."""
    when = ", ".join(f"{other}={value}" for other, value in dimension.get("when", {}).items())
    steps = f" in {dimension['steps']} steps" if "steps" in dimension else ""
    if "choice" in dimension:
        text = "one of " + ", ".join(map(str, dimension["choice"]))
    else:
        kind = next(k for k in ("uniform", "log_uniform", "integer") if k in dimension)
        low, high = dimension[kind]
        text = f"{kind} {low:g} to {high:g}{steps}"
    return f"{name:28} {text}" + (f", when {when}" if when else "")
