"""The budget of a suite's line with `flops_of`: as many examples as its training takes for the FLOPs of another line.

A distilled student learns from as many examples as a directly tuned one, but its teachers cost compute too. This gives
the baseline that spends the same in total. Both lines are priced before training, like `hkdbench plan` does, but from
examples as training shows them: each role once for each example, without what a cache saves or a second view adds.
"""

from __future__ import annotations

from harness.api import Example, Stage
from harness.config import RunConfig
from harness.errors import ConfigError, near
from harness.planning import plan
from harness.planning.stages import steps_of_budget
from harness.suite import SuiteConfig, SuiteRun

EXAMPLES = 64
"""How many examples of each stage a price is computed from."""


def priced(suite: SuiteConfig) -> SuiteConfig:
    """The suite with the budgets of its lines with `flops_of`, in whole steps: the same for all seeds.

    Raises `ConfigError` if there is no such line, if it has no price, or if it isn't run on the same benchmarks.
    """
    if not any(run.flops_of for run in suite.runs):
        return suite
    runs = tuple(_with_budget(suite, run) if run.flops_of else run for run in suite.runs)
    return suite.model_copy(update={"runs": runs})


def _with_budget(suite: SuiteConfig, run: SuiteRun) -> SuiteRun:
    other = _named(suite, run)
    examples = {}
    for benchmark in run.benchmarks or suite.benchmarks:
        if other.benchmarks and benchmark not in other.benchmarks:
            raise ConfigError(
                f"runs: {run.method}: flops_of = {run.flops_of!r} isn't run on {benchmark!r}, but on "
                f"{', '.join(other.benchmarks)}; give this line the same benchmarks"
            )
        own = _config(suite, run, benchmark)
        price, goal = _price(own), _price(_config(suite, other, benchmark))
        if not price or not goal:
            free = run.method if not price else other.method
            raise ConfigError(
                f"runs: {run.method}: flops_of = {run.flops_of!r}: {free!r} trains nothing, so it costs no FLOPs; "
                "expected two lines that train"
            )
        steps = max(round(goal / price * steps_of_budget(own.train)), 1)
        examples[benchmark] = steps * own.train.batch_size
    return run.model_copy(update={"examples": examples})


def _named(suite: SuiteConfig, run: SuiteRun) -> SuiteRun:
    """The line that `flops_of` names; of several with this name, the one with the same student."""
    others = [one for one in suite.runs if not one.flops_of]
    found = [one for one in others if run.flops_of == (one.label or one.method)]
    if len(found) > 1:
        found = [one for one in found if one.student == run.student]
    if len(found) != 1:
        names = {one.label or one.method for one in others}
        how = f"{len(found)} lines have this name, give each its own label" if found else near(str(run.flops_of), names)
        raise ConfigError(f"runs: {run.method}: flops_of = {run.flops_of!r}: {how}")
    return found[0]


def _config(suite: SuiteConfig, run: SuiteRun, benchmark: str) -> RunConfig:
    """A line's run at the suite's budget, with the first seed."""
    line = run.model_copy(update={"flops_of": None, "examples": {}, "benchmarks": (benchmark,), "seeds": ()})
    (config,) = suite.model_copy(update={"runs": (line,), "seeds": suite.seeds[:1]}).run_configs()
    return config


def _price(config: RunConfig) -> float:
    """FLOPs of its training, teachers included."""
    from harness.planning import cost  # these load torch, which few suites need before they run
    from harness.train.views import shown

    planned = plan.make(config)

    def sample(stage: Stage) -> list[Example]:
        alone = not config.train.shares  # else the questions of a forward pass share their images
        at = planned.batch_at(stage, 0, EXAMPLES) if alone else cost.first_step(planned, stage)
        trained = plan.for_stage(planned, stage)
        return [shown(trained, position, example).example for position, example in at]

    return float(cost.of(planned, sample)["train_flops"])
