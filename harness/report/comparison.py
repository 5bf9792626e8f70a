"""The text of a comparison of two rows or runs: plain text for a terminal, and JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.leaderboard.compare import Comparison, Disagreement
from harness.record import Interval
from harness.report.format import forwards_apart, one_line, p_value, percent, points, short
from harness.report.text import WIDTH
from harness.stats import power
from harness.stats.bootstrap import RESAMPLES
from harness.stats.inference import Difference


def to_json(found: Comparison) -> str:
    """One JSON document with all fields; the budgets of the sides only if they differ."""

    def plain(value: Any) -> Any:
        return value.model_dump() if isinstance(value, Interval) else str(value)

    document = asdict(found)
    if not _unequal_budgets(found):
        for side in ("a", "b"):
            del document[side]["budget"]
    return json.dumps(document, indent=1, default=plain)


def _unequal_budgets(found: Comparison) -> bool:
    return bool(found.a.budget and found.b.budget and found.a.budget != found.b.budget)


def to_text(found: Comparison) -> str:
    """A page of plain text, figures in per cent."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    d, many = found.difference, len(found.difference.seeds) > 1
    seeds = f"{len(d.seeds)} seeds" if many else "one seed"
    console.print(f"A  {found.a.name}\nB  {found.b.name}")
    console.print(
        f"{found.a.benchmark}, {found.split} split: {found.examples} examples about {d.groups} images, {seeds}\n"
    )
    value_a, value_b = (percent(Interval(value=value)) for value in found.values)
    console.print(f"{found.metric}: A {value_a}, B {value_b}")
    console.print(f"A - B: {_difference(d)}")
    if d.borrowed:
        console.print("one seed: how much seeds differ is taken from all rows on these data")
    if _unequal_budgets(found):
        learned = f"A {found.a.budget:,}, B {found.b.budget:,}"
        console.print(f"training examples: {learned}; they can't be compared on equal terms")
    if forwards_apart((found.a.forwards, found.b.forwards)):
        passes = f"A {short(found.a.forwards)}, B {short(found.b.forwards)}"
        console.print(f"forward passes per answer: {passes}; they can't be compared on equal terms")
    if found.power:
        console.print(_enough(found.power, d.groups, len(d.seeds)))
    if found.mcnemar:
        m = found.mcnemar
        console.print(f"McNemar, exact: only A right {m.only_a}, only B right {m.only_b}, p {p_value(m.p)}")
    e = found.errors
    shares = (found.agreement, e.inherited, e.copied, e.introduced, e.fixed)
    agreement, inherited, copied, introduced, fixed = (percent(share, bounds=False) for share in shares)
    console.print(f"same answer: {agreement}")
    console.print(
        f"A's errors:  inherited (B is wrong too) {inherited}, of these with the same answer {copied}\n"
        f"             introduced (B is right) {introduced}; B's errors that A fixed {fixed}"
    )
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("category", "examples", "A - B in accuracy", "raw p", "Holm p"):
        grid.add_column(name, justify="left" if name == "category" else "right", overflow="fold")
    for c in found.categories:
        cells = (c.name, str(c.examples), *_difference(c.difference).split(", raw p "), p_value(c.p_holm))
        grid.add_row(*map(Text, cells))
    console.print(grid)
    if found.parted:
        shown = f"{len(found.parted)} of {found.parted_in_all}" if found.parted_in_all > len(found.parted) else "All"
        console.print(
            f"{shown} examples on which one is right {'with more seeds' if many else 'and the other is not'}:"
        )
    for p in found.parted:
        console.print(Text(_example(p, found.a.options)))
    console.print(
        f"\nIntervals (95 %) and p over {'seeds and images' if many or d.borrowed else 'images'}, "
        f"{RESAMPLES:,} resamples; Holm p is over all {len(found.categories)} categories."
    )
    for run in dict.fromkeys((*found.a.left_out, *found.b.left_out)):
        console.print(Text(f"broken, left out: {one_line(run)}"))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _difference(d: Difference) -> str:
    return f"{points(d)}, raw p {p_value(d.p)}"


def _enough(report: power.PowerReport, images: int, seeds: int) -> str:
    """What these data can detect, and what would make the observed difference detectable."""
    here = f"{images:,} images and {'one seed' if seeds == 1 else f'{seeds} seeds'}"
    said = f"{here} can detect a difference of {100 * report.detectable:.1f} points (at p 0.05, with a power of 80 %)"
    if report.more_images == 0:
        return f"{said}: enough for the observed one"
    ways = [f"{report.images:,} images"] if report.images else []
    ways += [f"{report.seeds:,} seeds"] if report.seeds else []
    if not ways:
        return (
            f"{said}; no number of images alone"
            + (", or of seeds alone," if seeds > 1 else "")
            + " would make the observed one detectable"
        )
    return f"{said}; to detect the observed one takes {' or '.join(ways)}, all else unchanged"


def _example(p: Disagreement, options: Sequence[str] | None) -> str:
    def name(k: int) -> str:
        return "none" if k < 0 else options[k] if options else chr(65 + k)

    def side(chosen: Sequence[int]) -> str:
        if len(chosen) == 1:
            return name(chosen[0])
        return f"{sum(k == p.gold for k in chosen)} of {len(chosen)} right"

    return f"  {p.id}  {p.category}  gold {name(p.gold)}  A {side(p.a)}  B {side(p.b)}"
