"""The result of a check, the report of all of them, and a run that is being checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from harness.data.dataset import Dataset
from harness.planning.plan import Plan
from harness.record import Record
from harness.submission import consistency

State = Literal["ok", "changed", "unverified"]


NAMED = 3
"""How many contradictions are listed; the others are only counted."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    check: str
    state: State
    detail: str


@dataclass(frozen=True)
class Report:
    """The results of all checks of a run."""

    run_id: str
    findings: tuple[CheckResult, ...]
    not_checked: tuple[str, ...] = ()
    """What the record states and no check covers."""

    @property
    def state(self) -> State:
        """`changed` if anything is; else `unverified` if something couldn't be checked."""
        states = {finding.state for finding in self.findings}
        return "changed" if "changed" in states else "unverified" if "unverified" in states else "ok"

    def of(self, state: State) -> list[CheckResult]:
        """The results with this state."""
        return [finding for finding in self.findings if finding.state == state]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        found = [asdict(finding) for finding in self.findings]
        return {
            "run_id": self.run_id,
            "state": self.state,
            "findings": found,
            "not_checked": list(self.not_checked),
        }


@dataclass
class ExaminedRun:
    """A run that is being checked, with its tables, data and plan if they are available."""

    record: Record
    setup: consistency.Setup
    trusted: bool
    """Made here: its config may name files of this machine."""
    predictions: pd.DataFrame | None = None
    history: pd.DataFrame | None = None
    dataset: Dataset | None = None
    """Only set if it is the data that the run saw."""
    plan: Plan | None = None
    """Only set if the code is the run's."""


def result_of(check: str, wrong: Iterable[str], good: str) -> CheckResult:
    """`changed` with the first few contradictions, or `ok`."""
    wrong = list(wrong)
    return CheckResult(check, "changed", first_few(wrong)) if wrong else CheckResult(check, "ok", good)


def first_few(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return "; ".join(texts[:NAMED]) + more
