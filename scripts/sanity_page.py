"""Writes docs/sanity.md from the records of suites/sanity.toml: does the arena show what is known of distillation?

    python -m scripts.sanity_page STORE [--suite suites/sanity.toml] [--json]

Every figure is recomputed from stored predictions, paired by seed and example, like those of the leaderboard.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from harness.config import parse, read_toml
from harness.errors import ConfigError, StoreError, UserError
from harness.experiments import equal_flops
from harness.leaderboard import inference, seed_results
from harness.leaderboard.seed_results import SeedResults
from harness.planning import plan
from harness.report.format import percent
from harness.stats.inference import Difference, seeds_difference
from harness.store import Store
from harness.suite import SuiteConfig

PAGE = Path("docs/sanity.md")
Sign = Literal["above 0", "below 0", "around 0"]
Pair = tuple[str, str]
"""The labels of two rows of the suite: the first minus the second."""


@dataclass(frozen=True)
class Check:
    """A line of the page: a difference between two rows (or between two such differences), and its known sign."""

    key: str
    says: str
    pair: Pair
    expected: Sign
    source: str
    minus: Pair | None = None
    """Subtract this difference: how much larger is the gain in one situation than in the other?"""


DIRECT, POOL, LABELS = "direct tuning", "KD on the pool", "KD on the labels"
CHECKS = (
    Check("a", "KD on the pool beats direct tuning on the labels", (POOL, DIRECT), "above 0", "arXiv 2106.05237"),
    Check("b", "KD on the labels alone beats direct tuning", (LABELS, DIRECT), "above 0", "arXiv 1503.02531"),
    Check("c1", "The gain of KD is larger with 30 % wrong labels than with none", (LABELS, DIRECT), "above 0",
          "arXiv 1703.02391", (f"{LABELS}, noise 0 %", f"{DIRECT}, noise 0 %")),
    Check("c2", "The gain of KD is larger with 500 labels than with 8,000", (f"{POOL}, 500 labels",
          f"{DIRECT}, 500 labels"), "above 0", "arXiv 2006.10029",
          (f"{POOL}, 8,000 labels", f"{DIRECT}, 8,000 labels")),
    Check("d", "A teacher whose answers belong to other examples does harm", ("wrong teacher", DIRECT), "below 0",
          "a negative control"),
    Check("e", "A tuned teacher helps more than an untuned one", (POOL, "untuned teacher"), "above 0",
          "a positive control"),
    Check("f", "A larger teacher teaches better than one of the student's size",
          (POOL, "teacher of the student's size"), "above 0", "arXiv 1503.02531; 1902.03393 for the opposite"),
    Check("g", "The same method under two names doesn't differ", ("twin", POOL), "around 0", "a negative control"),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A check on one benchmark, in percentage points."""

    check: str
    says: str
    benchmark: str
    value: float
    low: float | None
    high: float | None
    seeds: int
    expected: Sign
    found: Sign
    source: str

    @property
    def holds(self) -> bool:
        return self.found == self.expected


# --------------------------------------------------------------------------------------------- figures


def run_ids(suite: SuiteConfig) -> dict[tuple[str, str], dict[int, str]]:
    """By label and benchmark: the suite's runs, by seed. Raises `ConfigError` for two lines with one label."""
    found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for config in suite.run_configs():
        label = config.label or config.method
        if config.seed in (runs := found[label, config.benchmark]):
            raise ConfigError(f"suite {suite.name!r}: two lines are called {label!r}: give each its own label")
        runs[config.seed] = plan.make(config).run_id
    return dict(found)


def results_of(store: Store, suite: SuiteConfig, split: str = "test") -> dict[tuple[str, str], SeedResults]:
    """By label and benchmark: the results of the suite's finished runs. Raises `StoreError` if there is none."""
    done = {row: {s: r for s, r in ids.items() if store.status(r) == "done"} for row, ids in run_ids(suite).items()}
    rows = {row: ids for row, ids in done.items() if ids}
    if not rows:
        raise StoreError(f"store {store.url} has no finished run of suite {suite.name!r}: run it first")
    return dict(zip(rows, seed_results.of_runs(store, list(rows.values()), split), strict=True))


def outcomes(results: Mapping[tuple[str, str], SeedResults], suite: SuiteConfig) -> list[Outcome]:
    """The checks on every benchmark for which there are their rows."""
    found = []
    for benchmark in suite.benchmarks:
        here = {label: result for (label, of), result in results.items() if of == benchmark}
        for check in CHECKS:
            if (figure := difference(here, check)) is None:
                continue
            found.append(Outcome(
                check.key, check.says, benchmark, 100 * figure.value,
                None if figure.low is None else 100 * figure.low, None if figure.high is None else 100 * figure.high,
                len(figure.seeds), check.expected, _sign(figure), check.source,
            ))  # fmt: skip
    return found


def difference(rows: Mapping[str, SeedResults], check: Check, metric: str = "accuracy") -> Difference | None:
    """The check's difference; None if a row isn't there. Replicates are drawn alike for the same test examples."""
    labels = [*check.pair, *(check.minus or ())]
    if any(label not in rows for label in labels):
        return None
    sides = [rows[label] for label in labels]
    if check.minus is None:
        return inference.difference(sides[0], sides[1], metric)
    seeds = sorted(set.intersection(*(set(side.seeds) for side in sides)))
    if not seeds or len({side.size for side in sides}) > 1:
        return None
    (gain_s, drawn_ns), (less_s, fewer_ns) = (
        inference.paired_difference(a, b, seeds, metric) for a, b in (sides[:2], sides[2:])
    )
    drawn = None if drawn_ns is None or fewer_ns is None else drawn_ns - fewer_ns
    prior = inference.prior_of_pair(sides[0], sides[1], metric)
    of_both = prior.scaled(2) if prior else None  # the variances of both differences
    return seeds_difference(gain_s - less_s, drawn, tuple(seeds), sides[0].groups, sides[0].size, of_both)


def _sign(figure: Difference) -> Sign:
    if figure.low is not None and figure.low > 0:
        return "above 0"
    return "below 0" if figure.high is not None and figure.high < 0 else "around 0"


# ------------------------------------------------------------------------------------------------ page


HEAD = """\
# Does the arena show what is known of distillation?

Generated by `python -m scripts.sanity_page` from stored records: don't edit it by hand.

Before methods are ranked, the arena itself is tested: effects that the literature takes for granted must appear with
the right sign, and what must not matter must not. Each line is a difference of test accuracies in percentage points,
paired by seed and example, with its 95 % interval over seeds and images. *as known* means: the interval lies on the
expected side of 0 (or holds 0, where no difference is expected).
"""


def not_measured(found: Sequence[Outcome], suite: SuiteConfig) -> Iterator[str]:
    """The checks whose rows the suite has and the store doesn't."""
    asked = {(config.label or config.method, config.benchmark) for config in suite.run_configs()}
    known = {(one.check, one.benchmark) for one in found}
    for benchmark in suite.benchmarks:
        for check in CHECKS:
            rows = {(label, benchmark) for label in (*check.pair, *(check.minus or ()))}
            if rows <= asked and (check.key, benchmark) not in known:
                yield f"- {benchmark}, {check.key}: {check.says}"


def page(found: Sequence[Outcome], notes: str = "") -> str:
    """The page in Markdown."""
    lines = [HEAD]
    for benchmark in dict.fromkeys(one.benchmark for one in found):
        lines += [f"## {benchmark}", "", "| | what | difference | expected | seeds | | source |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        lines += [_line(one) for one in found if one.benchmark == benchmark]
        lines.append("")
    return "\n".join([*lines, notes]).rstrip() + "\n"


def _line(one: Outcome) -> str:
    bounds = "" if one.low is None or one.high is None else f" [{one.low:+.1f}, {one.high:+.1f}]"
    verdict = "as known" if one.holds else f"**{one.found}**"
    return (
        f"| {one.check} | {one.says} | {one.value:+.1f}{bounds} | {one.expected} | {one.seeds} | {verdict} "
        f"| {one.source} |"
    )


def _figures(results: Mapping[tuple[str, str], SeedResults], suite: SuiteConfig) -> Iterator[str]:
    """The rows' own accuracies, as a table."""
    by_index = inference.intervals(list(results.values()), "accuracy")
    accuracy = {row: by_index[k] for k, row in enumerate(results)}
    yield "## The rows' test accuracy (%)"
    yield ""
    yield "| row | " + " | ".join(suite.benchmarks) + " |"
    yield "|---|" + "---|" * len(suite.benchmarks)
    for label in dict.fromkeys(label for label, _ in results):
        of = {benchmark: (label, benchmark) for benchmark in suite.benchmarks if (label, benchmark) in results}
        cells = (
            f"{percent(accuracy[of[b]])} ({len(results[of[b]].seeds)} seeds)" if b in of else ""
            for b in suite.benchmarks
        )
        yield f"| {label} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--suite", type=Path, default=Path("suites/sanity.toml"))
    parser.add_argument("--json", action="store_true", help="print the checks instead of writing the page")
    args = parser.parse_args()
    try:
        suite = equal_flops.priced(parse(SuiteConfig, read_toml(args.suite), str(args.suite)))
        results = results_of(Store(args.store), suite)
        found = outcomes(results, suite)
        if args.json:
            print(json.dumps([asdict(one) | {"holds": one.holds} for one in found], indent=1))
            return
        notes = list(_figures(results, suite))
        if missing := list(not_measured(found, suite)):
            notes = ["## Not measured yet", "", *missing, "", *notes]
        PAGE.write_text(page(found, "\n".join(notes)), encoding="utf-8")
        print(f"wrote {PAGE}")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
