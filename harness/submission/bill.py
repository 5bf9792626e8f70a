"""Whether a record's bill follows from its plan: forwards from the stages, FLOPs from models and prompts.

The bounds hold for any record. Exact numbers take the run's plan (the same code, data and models), and exact FLOPs also
the models' tokenizers: `harness.submission.flops`, which the caller passes, because it loads torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from harness.planning.plan import Plan
from harness.record import Record, RoleCost, StageRecord
from harness.submission.checks import CheckResult, ExaminedRun, result_of
from harness.submission.replan import is_plan_of

Flops = Callable[[Record, Plan], Iterable[tuple[str, bool]]]
"""Gives the FLOPs that aren't the plan's, in words, and whether that is sure; see `harness.submission.flops`."""
VIEWS = 2
"""In how many views a step can ask a model about an example (`harness.api.View`)."""
MOST_TOKENS = 1_000_000
"""More text tokens or image patches than an example has."""
MOST_EXAMPLES = 1_000_000
"""The largest number of training examples that are shown again."""


def bill_checks(run: ExaminedRun, flops: Flops | None) -> Iterator[CheckResult]:
    """Forwards, examples and FLOPs of every role, and the forwards on test. FLOPs aren't compared without `flops`."""
    r, plan = run.record, run.plan
    cached = run.setup.train is None or run.setup.train.cache != "off"
    wrong = [text for stage in r.stages for text in _out_of_bounds(r, stage, cached)]
    if wrong or plan is None or not is_plan_of(r, plan):
        yield result_of("bill", wrong, f"forwards of {len(r.cost.roles)} roles fit the stages")
        if not wrong:
            yield CheckResult("bill", "unverified", "FLOPs follow from the plan, which can't be made here")
        return
    if (asked := _test_forwards(plan)) != r.cost.test_forwards:
        wrong.append(f"{r.cost.test_forwards} forwards on test, the plan gives {asked}")
    open_: list[str] = []
    if sum(stage.examples for stage in r.stages) > MOST_EXAMPLES:
        open_.append(f"FLOPs of more than {MOST_EXAMPLES:,} examples")
    elif flops is None:
        open_.append("exact FLOPs take the models' tokenizers: hkdbench verify computes them")
    else:
        for text, sure in flops(r, plan):
            (wrong if sure else open_).append(text)
    computed = "examples and forwards" if open_ else "examples, forwards and FLOPs"
    yield result_of("bill", wrong, f"{computed} of {len(r.cost.roles)} roles follow from the plan")
    if open_:
        yield CheckResult("bill", "unverified", "; ".join(dict.fromkeys(open_)))


def _out_of_bounds(r: Record, stage: StageRecord, cached: bool) -> Iterator[str]:
    """What no stage of these examples can cost."""
    for name, role in stage.roles.items():
        key = f"{stage.name}.{name}"
        cost = r.cost.roles.get(key, RoleCost())
        if stage.taken_over:
            if cost != RoleCost():
                yield f"{key} was billed, though another run had trained the stage"
            continue
        wrote = cost.wrote or cost.generated  # older records have the tokens alone
        asked = cost.forwards + cost.recalled + cost.shared + wrote
        least = stage.examples if role.trainable else 1
        free = cached or cost.scored + wrote > 0  # a role may write and read several responses to an example
        if asked < least or (not free and asked > VIEWS * stage.examples):
            yield f"{key} was asked {asked} times about {stage.examples} examples"
        if role.trainable and cost.trained != cost.forwards:
            yield f"{key} was forwarded {cost.forwards} times and trained on {cost.trained} examples"
        if (cost.recalled or cost.shared) and not cost.generated and (role.trainable or not cached):
            yield f"{key} took {cost.recalled + cost.shared} answers from a cache that it doesn't have"
        if cost.wrote > cost.generated or cost.read > cost.forwards:
            yield f"{key} wrote {cost.wrote} responses of {cost.generated} tokens and read {cost.read} of them"
        passes = cost.forwards * (VIEWS + 1 if role.trainable else 1) + wrote
        # Every parameter of a language model takes part in every token; an embedding's in few, and there are prompts.
        low, high = cost.forwards * role.parameters, 2 * passes * role.parameters * MOST_TOKENS
        if not low <= cost.flops <= high:
            yield f"{key} was billed {cost.flops:g} FLOPs for {cost.forwards} forwards of {role.parameters} parameters"


def _test_forwards(plan: Plan) -> int:
    if "test" not in plan.config.evaluate.splits:
        return 0
    samples, asked = plan.config.evaluate.samples, plan.dataset.splits.get("test", ())
    return samples * sum(len(plan.asking.views(example)) for example in asked)
