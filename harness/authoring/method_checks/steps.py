"""Checks of the computation: settings, stages, and single steps of every stage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from harness import registry
from harness.api import Example
from harness.authoring.method_checks.case import PROGRESS, Broken, Case, LiveStage, Tried, method_class
from harness.errors import ConfigError
from harness.planning import stages as planned_stages
from harness.report import describe
from harness.train.step import Terms, initial, sums_of, updated

TOLERANCE = 1e-3
"""Relative: padding and the order of sums change a float32 loss by less than 1e-5."""


def settings(case: Case) -> None:
    """Every setting has a type and a docstring, survives JSON, and gives the same run again."""
    cls = method_class(case)
    if not getattr(cls, "summary", ""):
        raise Broken('the class has no summary: add `summary: ClassVar[str] = "..."`, one line for the tables')
    texts = describe.field_docs(cls)
    for one in dataclasses.fields(cls):
        if not texts.get(one.name):
            raise Broken(
                f"setting {one.name!r} has no docstring: write one in the line below it, with what it does and "
                "where its default comes from"
            )
    method = registry.make_method(case.name, case.settings)
    try:
        loaded = json.loads(json.dumps(dataclasses.asdict(method)))
    except (TypeError, ValueError) as error:
        raise Broken(
            f"settings can't be written as JSON ({error}): use bool, int, float, str, and tuples or dicts of these"
        ) from None
    again = registry.make_method(case.name, loaded)
    changed = [f.name for f in dataclasses.fields(cls) if getattr(again, f.name) != getattr(method, f.name)]
    if changed:
        name = changed[0]
        raise Broken(
            f"setting {name!r} is {getattr(method, name)!r}, and {getattr(again, name)!r} after a round trip through "
            "JSON: its type must match its values, and __post_init__ must not change it"
        )
    if case.planned(loaded).run_id != case.plan.run_id:
        raise Broken("the same settings, written as JSON and read again, give another run id")


def ablations(case: Case) -> None:
    """Every declared ablation is a valid change of the settings."""
    cls = method_class(case)
    name, own = registry.resolve_preset(case.name, case.settings)
    for label, override in cls.ablations.items():
        try:
            changed = dataclasses.asdict(registry.make_method(name, {**own, **override}))
        except ConfigError as error:
            raise Broken(f"ablations[{label!r}] = {dict(override)}: {error}") from None
        if not own and changed == case.plan.settings:
            raise Broken(
                f"ablations[{label!r}] = {dict(override)} changes nothing: name a setting with a value that is not its "
                "default"
            )


def stages(case: Case) -> None:
    """The stages are valid on this ladder and shorter ones, and the student's shares sum to 1."""
    method = case.method
    for rungs in (("L", "M", "S"), ("L", "S"), ("S",)):
        for student in rungs:
            where = f"stages(ladder={rungs}, student={student!r})"
            try:
                laid_out = list(method.stages(rungs, student))
                again = list(method.stages(rungs, student))
            except ConfigError as error:
                if rungs == ("L", "M", "S") and student == case.student:
                    raise Broken(f"{where}: {error}") from None
                continue  # a method may refuse a ladder with an error message
            except Exception as error:
                raise Broken(
                    f"{where} raised {type(error).__name__}: {error}; if the ladder doesn't fit, raise ConfigError "
                    "that says which rung is missing"
                ) from error
            if again != laid_out:
                raise Broken(f"{where} returned different stages the second time: it must depend only on its arguments")
            config = case.config().model_copy(update={"student": student})
            try:
                planned_stages.plan_stages(method, list(rungs), config)
            except ConfigError as error:
                raise Broken(f"{where}: {error}") from None


def loss(case: Case) -> None:
    """The loss has an entry for each learner, finite, one number per example, in every part of every stage."""
    for live in case.live:
        for progress in PROGRESS:
            for (role, term), value_b in live.step(case.examples, progress).terms.items():
                if not torch.isfinite(value_b).all():
                    first = int((~torch.isfinite(value_b)).nonzero()[0])
                    example = case.examples[first]
                    raise Broken(
                        f"{live.where}, progress {progress:g}: loss term {role}.{term} is "
                        f"{value_b[first].item()} for an example with {len(example.options)} options; missing options "
                        "have the logit -1e4: mask them with step.options_bk"
                    )


def per_example(case: Case) -> None:
    """An example's loss doesn't depend on the other examples of its micro-batch, unless `couples` says so."""
    for live in case.live:
        if live.plan.method.couples(live.stage.name):
            _coupled(case, live)
            continue
        whole = live.step(case.examples).terms
        half = len(case.examples) // 2
        # Pairs of one shape have fewer options than the largest number in the batch.
        ways: dict[str, list[Sequence[Example]]] = {
            "in reverse order": [case.examples[::-1]],
            "in two halves": [case.examples[:half], case.examples[half:]],
            "one by one": [[example] for example in case.examples],
        }
        for way, parts in ways.items():
            cut = [live.step(part).terms for part in parts]
            for terms in cut:
                _same_names(live, whole, terms)
            for key, expected_b in whole.items():
                found_b = torch.cat([terms[key].detach() for terms in cut])
                if way == "in reverse order":
                    found_b = found_b.flip(0)
                _same_values(live, key, way, expected_b.detach(), found_b, case.examples)


def _coupled(case: Case, live: LiveStage) -> None:
    """The order of a coupled batch makes no difference, and its examples do."""
    whole, back, halves = (
        [live.step(part).terms for part in parts]
        for parts in ([case.examples], [case.examples[::-1]], [case.examples[:4], case.examples[4:]])
    )
    same = True
    for key, expected_b in whole[0].items():
        _same_values(live, key, "in reverse order", expected_b.detach(), back[0][key].detach().flip(0), case.examples)
        cut_b = torch.cat([terms[key].detach() for terms in halves])
        same = same and not bool(_apart(expected_b.detach(), cut_b).any())
    if same:
        raise Broken(
            f"{live.where}: couples() returned True, but every loss is the same in half a batch: return False, so that "
            "the method can be trained with micro-batches and several workers"
        )


def _apart(expected_b: Tensor, found_b: Tensor) -> Tensor:
    return (expected_b - found_b).abs() > TOLERANCE * (1 + expected_b.abs())


def _same_names(live: LiveStage, whole: Terms, part: Terms) -> None:
    if set(whole) != set(part):
        odd = ", ".join(f"{role}.{term}" for role, term in sorted(set(whole) ^ set(part)))
        raise Broken(
            f"{live.where}: loss term {odd} exists for some micro-batches only: which terms exist may "
            "depend on stage, progress and settings, not on the examples; give zeros instead"
        )


def _same_values(live: LiveStage, key: tuple[str, str], way: str, expected_b: Tensor, found_b: Tensor,
                 examples: Sequence[Example]) -> None:  # fmt: skip
    apart_b = _apart(expected_b, found_b)
    if apart_b.any():
        at = int(apart_b.nonzero()[0])
        raise Broken(
            f"{live.where}: loss term {key[0]}.{key[1]} of one example with {len(examples[at].options)} "
            f"options is {expected_b[at].item():.5g} in a batch of {len(examples)} and {found_b[at].item():.5g} with "
            f"the same examples {way}: compute each row from its own values only (no mean over the batch, nothing that "
            "depends on K, the largest number of options in the batch: mask with step.options_bk), or override "
            "couples() if the method compares the examples of a batch"
        )


def state(case: Case) -> None:
    """What `observe` is given doesn't depend on the batch, and `update` depends on its arguments only."""
    for live in case.live:
        now = initial(case.method, live.stage.name, torch.device("cpu"))
        for progress in PROGRESS if now else ():
            whole = live.step(case.examples, progress, now)
            each = [live.step([example], progress, now) for example in case.examples]
            for name, rows_b in whole.micro.observed.items():
                if not all(name in one.micro.observed for one in each):
                    raise Broken(f"{live.where}: step.observe({name!r}) is called for some micro-batches only")
                found_b = torch.cat([one.micro.observed[name] for one in each])
                if not torch.allclose(found_b.float(), rows_b.float(), TOLERANCE, TOLERANCE):
                    raise Broken(
                        f"{live.where}: the rows of step.observe({name!r}) change with the other examples of the "
                        "batch: compute each from its own example"
                    )
            sums = [sums_of(whole.micro)]
            kept = {name: tensor.clone() for name, tensor in now.items()}
            once, again = (updated(live.location, case.method, now, sums, len(case.examples)) for _ in range(2))
            if changed := [name for name in now if not torch.equal(now[name], kept[name])]:
                raise Broken(f"{live.where}: update() changed {changed[0]!r} in place: return a new tensor")
            if not all(torch.equal(once[name], again[name]) for name in once):
                raise Broken(
                    f"{live.where}: update() returned two states for the same sums: draw no random numbers in it"
                )
            now = once


def gradients(case: Case) -> None:
    """Each learner's loss has gradients for that learner, and for no other role."""
    for live in case.live:
        tried = live.step(case.examples)
        for learner in live.learners:
            total = torch.stack([value_b.sum() for (role, _), value_b in tried.terms.items() if role == learner]).sum()
            where = f"{live.where}: the loss of {learner!r}"
            for name, role in live.learners.items():
                parameters = list(role.parameters.values())
                found = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
                reached = any(g is not None and bool(g.any()) for g in found)
                if reached and name != learner:
                    raise Broken(
                        f"{where} has a gradient for {name!r}: detach that role's logits if they are a target, or "
                        f"add the term to {name!r}"
                    )
                if name == learner and not reached:
                    raise Broken(f"{where} doesn't depend on its weights: compute it from step.forward({learner!r})")


def forwards(case: Case) -> None:
    """Every role is forwarded once per step and view, the same on every rank, and billed."""
    for live in case.live:
        used: set[str] = set()
        for progress in PROGRESS:
            tried = live.step(case.examples, progress)
            passes = tried.micro.forward_passes
            _billed(live, tried, len(case.examples))
            used |= {role for role, _ in passes}
            for example in case.examples:
                if odd := sorted(live.step([example], progress).micro.forward_passes ^ passes):
                    raise Broken(
                        f"{live.where}: role {odd[0][0]!r} is forwarded for some micro-batches only; the ranks "
                        "wait for each other, so which roles are forwarded may depend on stage, progress and "
                        "settings, not on the examples"
                    )
            if missing := sorted(set(live.learners) - {role for role, _ in passes}):
                raise Broken(
                    f"{live.where}: the learner {missing[0]!r} is not forwarded at progress {progress:g}: call "
                    f"step.forward({missing[0]!r}) in every step, or freeze the role"
                )
        kept = planned_stages.handed_on(case.plan.stages, live.stage, case.method.student)
        averages = {name for name, role in live.stage.roles.items() if role.average_of is not None}
        if idle := sorted(set(live.roles) - used - (kept & averages)):
            raise Broken(
                f"{live.where}: role {idle[0]!r} is never forwarded: remove it from the stage, where it takes "
                "memory for nothing"
            )


def _billed(live: LiveStage, tried: Tried, batch: int) -> None:
    for role in live.roles:
        ran, billed = tried.ran.get(role, 0), tried.billed.get(role, 0)
        if ran != billed:
            raise Broken(
                f"{live.where}: role {role!r} was forwarded on {ran} examples and billed for {billed}: call "
                "only step.forward(role), which bills it, not the model itself"
            )
        views = sum(one == role for one, _ in tried.micro.forward_passes)
        if ran > batch * views:
            raise Broken(
                f"{live.where}: role {role!r} was forwarded {ran / batch:g} times in a step; expected once per view: "
                "reuse the result of step.forward(role)"
            )
