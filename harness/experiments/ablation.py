"""The ablation of a method: the full method, variants without one of its parts, and its rivals.

The method itself lists its variants (`Method.ablations`: a name, and the settings that differ). Runs are executed by
`harness.execution.launch` like those of any suite, so finished ones are never repeated. The results are computed by
`harness.leaderboard.ablation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness import registry
from harness.config import RunConfig
from harness.errors import ConfigError
from harness.leaderboard.ablation import Ablation, AblationLine, Part, check_name
from harness.models.ladders import find
from harness.planning import plan
from harness.suite import SuiteConfig, SuiteRun

RIVALS = ("zero_shot", "finetune", "offline_kd", "mutual", "assistant")
"""The rivals of the method, unless a suite names others; those that don't exist are left out."""


@dataclass(frozen=True)
class AblationVariant:
    """A line of the ablation before it is run."""

    label: str
    part: Part
    run: SuiteRun


# ---------------------------------------------------------------------------------------- the runs


def suite_table(
    method: str, seeds: Sequence[int], benchmarks: Sequence[str], student: str, ladder: str
) -> dict[str, Any]:
    """The table of a suite with the method and its rivals, in the format of a TOML file."""
    rungs = [rung.name for rung in find(ladder).rungs]
    known = registry.methods()
    rivals = [
        {"method": rival, "student": rung}
        for rival in RIVALS
        if rival in known and rival != method
        for rung in (rungs if rival == "finetune" else [student])
    ]
    return {
        "name": f"{method}_ablation",
        "seeds": list(seeds),
        "benchmarks": list(benchmarks),
        "ladder": ladder,
        "runs": [{"method": method, "student": student}, *rivals],
    }


def variants(method: str, suite: SuiteConfig) -> tuple[list[AblationVariant], dict[str, str]]:
    """The full method (the suite's first run of it), its ablations, and the suite's other runs.

    Also returns why some were left out: they don't fit the ladder, or change nothing. Raises `ConfigError` for
    a suite without the method, and for one of the suite's own runs that doesn't fit. An ablation that the suite lists
    itself, with `seeds` of its own, has those.
    """
    mine = next((run for run in suite.runs if run.method == method), None)
    if mine is None:
        raise ConfigError(f"suite {suite.name!r} has no run of {method!r}: add [[runs]] with method = {method!r}")
    name, settings = registry.resolve_preset(method, mine.settings)
    full = mine.model_copy(update={"method": name, "settings": settings})
    found = [AblationVariant(mine.label or "full", "full", full)]
    for label, override in registry.methods()[name].load().ablations.items():
        own = f"{mine.label}, {label}" if mine.label else None
        run = full.model_copy(update={"settings": {**settings, **override}, "label": own, "seeds": ()})
        found.append(AblationVariant(label, "ablation", run))
    declared = len(found)
    others = [run for run in suite.runs if run is not mine]
    found += [
        AblationVariant(_label(run, mine), "ablation" if run.method == method else "rival", run) for run in others
    ]
    kept: list[AblationVariant] = []
    left_out: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, variant in enumerate(found):
        one = one_seed(suite, variant.run)[0]
        try:
            run_id = plan.make(one).run_id
        except ConfigError as error:
            plain_rival = variant.run.method in RIVALS and not variant.run.settings
            if not (0 < number < declared or (number and plain_rival)):
                raise  # an error in the suite, not a ladder without a suitable rung
            left_out[variant.label] = str(error)
            continue
        if run_id in seen:
            same = kept[seen[run_id]]
            left_out[variant.label] = f"the same run as {same.label!r}"
            if variant.run.seeds:
                run = same.run.model_copy(update={"seeds": variant.run.seeds})
                kept[seen[run_id]] = replace(same, run=run)
            continue
        seen[run_id] = len(kept)
        kept.append(variant)
    return kept, left_out


def one_seed(suite: SuiteConfig, run: SuiteRun) -> list[RunConfig]:
    """A line's runs with a single seed, one per benchmark."""
    line = run.model_copy(update={"seeds": ()})
    return suite.model_copy(update={"runs": (line,), "seeds": suite.seeds[:1]}).run_configs()


def _label(run: SuiteRun, full: SuiteRun) -> str:
    if run.label:
        return run.label
    settings = "".join(f" {key}={value}" for key, value in run.settings.items() if full.settings.get(key) != value)
    return f"{run.method}{settings} ({run.student})"


def configs(suite: SuiteConfig, kept: Sequence[AblationVariant]) -> list[RunConfig]:
    """Every run of the ablation; seeds vary slowest."""
    return suite.model_copy(update={"runs": tuple(v.run for v in kept)}).run_configs()


def lay_out(method: str, suite: SuiteConfig, kept: Sequence[AblationVariant], left_out: Mapping[str, str]) -> Ablation:
    """The ablation with the run ids of all its lines."""
    check_name(suite.name)
    lines = []
    for variant in kept:
        runs: dict[str, dict[int, str]] = {}
        for config in configs(suite, [variant]):
            planned = plan.make(config)
            runs.setdefault(config.benchmark, {})[config.seed] = planned.run_id
            settings = planned.settings
        lines.append(
            AblationLine(
                label=variant.label,
                part=variant.part,
                method=variant.run.method,
                student=variant.run.student,
                settings=settings,
                runs=runs,
            )
        )
    return Ablation(name=suite.name, method=method, lines=tuple(lines), left_out=dict(left_out))
