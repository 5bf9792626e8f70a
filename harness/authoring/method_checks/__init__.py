"""The contract of a method, as checks that say what to change: `hkdbench check-method`, or your own pytest.

    CASE = Case("my_method", plugins=["my_method.py"])

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name):
        CHECKS[name](CASE)

A check raises `Broken` (an `AssertionError`); its docstring says what it checks. All of them train on a tiny
generated benchmark and the tiny ladder, in this process except for `two_workers`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import registry
from harness.authoring.method_checks import runs, steps, views
from harness.authoring.method_checks.case import Broken, Case, method_class
from harness.errors import TrainingError, UserError

__all__ = ["CHECKS", "Broken", "Case", "CheckOutcome", "check_method"]

CHECKS: Mapping[str, Callable[[Case], None]] = {
    "settings": steps.settings,
    "ablations": steps.ablations,
    "stages": steps.stages,
    "augment": views.augment,
    "leaks": views.leaks,
    "views": views.views,
    "loss": steps.loss,
    "per_example": steps.per_example,
    "state": steps.state,
    "gradients": steps.gradients,
    "forwards": steps.forwards,
    "cost": runs.cost,
    "resume": runs.resume,
    "two_workers": runs.two_workers,
}
"""By name, the cheap ones first."""

_NEEDS = {
    "ablations": ("settings",),
    "stages": ("settings",),
    "loss": ("stages", "augment"),
    "per_example": ("loss",),
    "state": ("loss",),
    "gradients": ("loss",),
    "forwards": ("loss",),
    "cost": ("loss", "views"),
    "resume": ("loss",),
    "two_workers": ("loss", "forwards"),
}
"""The checks that must pass before a check is meaningful."""


@dataclass(frozen=True)
class CheckOutcome:
    """The result of a check: `message` says what to change if it failed, or why it was skipped."""

    check: str
    promise: str
    status: Literal["ok", "broken", "skipped"]
    message: str
    seconds: float


def check_method(
    name: str, settings: Mapping[str, Any] | None = None, plugins: Sequence[str] = ()
) -> Iterator[CheckOutcome]:
    """Run every check of the method; after a failure, those that don't depend on it still run.

    Raises `ConfigError` for an unknown name or invalid settings.
    """
    case = Case(name, settings or {}, [registry.absolute(plugin) for plugin in plugins])
    method_class(case)
    bad: set[str] = set()
    for check in CHECKS:
        found = _find(check, case, bad)
        if found.status != "ok":
            bad.add(check)
        yield found


def _find(check: str, case: Case, bad: set[str]) -> CheckOutcome:
    promise = (CHECKS[check].__doc__ or "").strip()
    if first := next((need for need in _NEEDS.get(check, ()) if need in bad), None):
        return CheckOutcome(check, promise, "skipped", f"fix {first!r} first", 0.0)
    clock = time.perf_counter()
    try:
        CHECKS[check](case)
    except (Broken, UserError, TrainingError) as error:
        return CheckOutcome(check, promise, "broken", str(error), time.perf_counter() - clock)
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}{_where(error)}"
        return CheckOutcome(check, promise, "broken", message, time.perf_counter() - clock)
    return CheckOutcome(check, promise, "ok", "", time.perf_counter() - clock)


def _where(error: BaseException) -> str:
    """The last line of the method's own code that an error passed through."""
    here = Path(__file__).resolve().parents[2]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if here not in Path(f.filename).parents]
    own = [f for f in frames if "site-packages" not in f.filename]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
