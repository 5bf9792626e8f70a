"""The contract of a method: every built-in keeps it, and for each check there are methods that don't."""

from __future__ import annotations

from functools import cache

import pytest

from harness import registry
from harness.authoring.method_checks import CHECKS, Broken, Case, check_method
from harness.errors import UserError
from helpers.common import ROOT, Cli

BROKEN_METHODS = str(ROOT / "tests" / "helpers" / "broken_methods.py")


@cache
def case(name: str) -> Case:
    return Case(name, plugins=[BROKEN_METHODS])


def built_ins() -> list[str]:
    return [name for name, cls in registry.load_all(registry.methods()) if name == cls.name]


@pytest.mark.slow
@pytest.mark.parametrize("method", built_ins())
def test_built_ins_keep_it(method: str) -> None:
    found = list(check_method(method))
    assert [f"{f.check}: {f.message}" for f in found if f.status != "ok"] == []
    assert [f.check for f in found] == list(CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_a_method_that_keeps_it(check: str) -> None:
    CHECKS[check](case("kept"))


@pytest.mark.parametrize(
    ("method", "check"),
    [
        *(("kept_average", check) for check in ("stages", "forwards", "cost", "resume", "two_workers")),
        *(("kept_state", check) for check in ("stages", "per_example", "state", "resume", "two_workers")),
        *(("kept_coupled", check) for check in ("per_example", "two_workers")),
    ],
)
def test_what_else_a_method_may_have(method: str, check: str) -> None:
    CHECKS[check](case(method))


@pytest.mark.parametrize(
    ("check", "method", "said"),
    [
        ("settings", "undocumented", "'extra' has no docstring: write one in the line below"),
        ("settings", "unwritten", "can't be written as JSON"),
        ("settings", "changing", "setting 'scale' is 2.0, and 4.0 after a round trip through JSON"),
        ("ablations", "idle_ablation", "changes nothing"),
        ("ablations", "wrong_ablation", "unknown setting 'wieght': did you mean 'weight'"),
        ("stages", "half_budget", "shares that sum to 0.5"),
        ("stages", "needs_three", r"ladder=\('S',\), student='S'\) raised IndexError.*raise ConfigError"),
        ("stages", "whimsical", "returned different stages the second time"),
        ("stages", "strange_average", "average_of = 'pupil', expected a trainable role of this stage: known: student"),
        ("augment", "lost_gold", "moved the options .* use example.reordered"),
        ("augment", "global_draws", "draw from the rng that is passed"),
        ("augment", "unhandy", "can't be pickled for another process"),
        ("leaks", "prompter", r"augment\(\) shows something else when only gold"),
        ("leaks", "peeper", r"views\(\) shows something else"),
        ("leaks", "cheat", r"fuse\(\) answers something else"),
        ("views", "unfused", "map them back to the example's options"),
        ("views", "first_wins", "no option may have a built-in advantage"),
        ("views", "no_views", "return at least the example itself"),
        ("loss", "scalar", r"loss term teacher.kd is \(\); expected \(8,\)"),
        ("loss", "infinite", "teacher.entropy is -inf .* mask them with step.options_bk"),
        ("loss", "in_place", r"changed the options of role 'teacher', .* in place; change a copy"),
        ("per_example", "centred", "compute each row from its own values only"),
        ("per_example", "uncoupled", r"couples\(\) returned True, but every loss is the same in half a batch"),
        ("per_example", "ordered_coupled", "with the same examples in reverse order"),
        ("per_example", "smoothed", "one example with [23] options .* mask with step.options_bk"),
        ("per_example", "some_terms", "exists for some micro-batches only"),
        ("state", "batch_state", r"the rows of step.observe\('ce'\) change with the other examples of the batch"),
        ("state", "sometimes_state", r"step.observe\('more'\) is called for some micro-batches only"),
        ("state", "moody_state", r"update\(\) returned two states for the same sums"),
        ("state", "in_place_state", r"update\(\) changed 'mean' in place: return a new tensor"),
        ("gradients", "not_stopped", "the loss of 'student' has a gradient for 'teacher': detach"),
        ("gradients", "deaf", "the loss of 'student' has a gradient for 'teacher'"),
        ("forwards", "sometimes_asked", "role 'teacher' is forwarded for some micro-batches only"),
        ("forwards", "idler", "role 'teacher' is never forwarded: remove it"),
        ("forwards", "idle_average", "role 'average' is never forwarded: remove it"),
        ("forwards", "unbilled", "forwarded on 16 examples and billed for 8"),
        ("forwards", "half_asked", "forwarded 3 times in a step; expected once per view"),
        ("cost", "half_asked", "billed for 60 forwards .* of 20 examples"),
        ("resume", "remembers", "in a resumed one: .* compute everything from the step"),
        ("two_workers", "counts_examples", r"student.loss/kd is \S+ with one worker and \S+ with two"),
    ],
)
def test_what_breaks_it_says_what_to_change(check: str, method: str, said: str) -> None:
    with pytest.raises((Broken, UserError), match=said):
        CHECKS[check](case(method))


def test_a_method_that_raises_is_told_with_its_line(cli: Cli) -> None:
    said = cli("check-method", "crashes", "--plugin", BROKEN_METHODS, "--json")
    assert said.code == 1
    assert not said.json["ok"]
    found = {finding["check"]: finding for finding in said.json["checks"]}
    assert found["stages"]["status"] == "ok"
    assert found["loss"]["status"] == "broken"
    assert "no role 'teacher' in this stage; it has student" in found["loss"]["message"]
    assert found["resume"]["status"] == "skipped"
    assert found["resume"]["message"] == "fix 'loss' first"


def test_a_name_that_is_not_known(cli: Cli) -> None:
    said = cli("check-method", "finetun")
    assert said.code == 2
    assert "did you mean 'finetune'" in said.err
    assert cli("check-method", "finetune", "--set", "train.lr=1").code == 2
