"""What the rows of a table are called, and the settings that they share, which are said once.

A row is called what its suite calls it (`label` in `[[runs]]`), else by its method and the settings in which it differs
from the other rows: those that its user set, and what is otherwise than by default in training, evaluation, ...
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from harness.config import RunConfig
from harness.store.index import RunSummary, assigned, flat

OWN_COLUMN = ("ladder", "student")
BUDGET = "train.examples"
"""It has a column of its own where rows differ in it."""


@dataclass(frozen=True)
class Group:
    """The runs of a row."""

    label: str
    members: tuple[RunSummary, ...]
    name: str = ""
    """What its suite calls it; "": it has no label."""
    spelled: str = ""
    """The method with all settings that tell it from its neighbours, those that all rows share included."""
    plain: str = ""
    """The method with the settings that its user set, where no other row of the student has the same; else ""."""
    shared: tuple[str, ...] = ()
    """Assignments that all trained rows of the table have in common: training, evaluation, data."""
    shared_by_method: tuple[str, ...] = ()
    """Settings that all rows of its method have in common, where there are several."""

    def named(self, name: str) -> bool:
        """Whether this is one of its names, alone or as `NAME@STUDENT`."""
        return is_named(name, self.members[0].student, (self.label, self.spelled, self.plain))


def is_named(name: str, student: str, names: Collection[str]) -> bool:
    """Whether a name is one of a row's, alone or as `NAME@STUDENT`."""
    return name in names or (student != "" and name.removesuffix(f"@{student}") in names)


def group(members: Sequence[RunSummary]) -> Group:
    """The runs of a row, which the newest of them that has a label names."""
    labelled = [run for run in sorted(members, key=lambda run: run.finished) if run.name]
    return Group(members[0].label, tuple(members), labelled[-1].name if labelled else "")


@dataclass(frozen=True)
class _Settings:
    """A row's configuration, flat."""

    group: Group
    whole: Mapping[str, Any]
    """All of it, as far as rows are compared by it."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The method's settings that the user set."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """What isn't by default of the rest."""


def named(groups: Sequence[Group]) -> list[Group]:
    """The rows of one table, each with a label of its own, and what they share."""
    rows = [_settings(one) for one in groups]
    trained = [row for row in rows if row.group.members[0].kind != "control"]
    keys = list(dict.fromkeys(key for row in trained for key in (BUDGET, *row.other)))
    same = [key for key in keys if _alike(row.whole.get(key) for row in trained)]
    shared = tuple(_brief(key, trained[0].whole[key]) for key in same if key in trained[0].whole)
    differing = set(keys) - set(same) - {BUDGET}
    of_method: dict[str, list[_Settings]] = defaultdict(list)
    for row in rows:
        of_method[row.group.members[0].method].append(row)
    found = {}
    for several in of_method.values():
        given = dict.fromkeys(key for row in several for key in row.given)
        common = [k for k in given if len(several) > 1 and _alike(row.whole.get(f"settings.{k}") for row in several)]
        values = {key: next(row.given[key] for row in several if key in row.given) for key in common}
        for row in several:
            control = row.group.members[0].kind == "control"
            others = {} if control else {k: v for k, v in row.other.items() if k in differing}
            shown = {**{key: value for key, value in row.given.items() if key not in common}, **others}
            method = row.group.members[0].method
            found[id(row.group)] = replace(
                row.group,
                label=row.group.name or " ".join([method, *(_brief(k, v) for k, v in shown.items())]),
                spelled=" ".join([method, *(assigned(k, v) for k, v in {**row.given, **others}.items())]),
                shared=() if control else shared,
                shared_by_method=tuple(_brief(key, value) for key, value in values.items()),
            )
    return _told_apart([replace(row, group=found[id(row.group)]) for row in rows])


def _told_apart(rows: Sequence[_Settings]) -> list[Group]:
    """Rows that would still read alike get the parts of their configuration that differ."""
    alike: dict[tuple[str, str], list[_Settings]] = defaultdict(list)
    for row in rows:
        alike[row.group.label, row.group.members[0].student].append(row)
    result = []
    for same in alike.values():
        keys = sorted({key for row in same for key in row.whole})
        differing = [key for key in keys if not _alike(row.whole.get(key) for row in same)]
        for row in same:
            extra = "".join(f" {assigned(k, row.whole[k])}" for k in differing if row.whole.get(k) is not None)
            spelled = row.group.spelled + ("" if row.group.name else extra)
            result.append(replace(row.group, label=row.group.label + extra, spelled=spelled))
    return _without_doubtful_names(result)


def _without_doubtful_names(groups: Sequence[Group]) -> list[Group]:
    """A spelling that is another row's too names neither."""
    count = Counter((name, one.members[0].student) for one in groups for name in {one.spelled, one.members[0].label})

    def unique(one: Group, name: str) -> bool:
        return count[name, one.members[0].student] == 1

    return [
        replace(
            one,
            spelled=one.spelled if unique(one, one.spelled) else one.label,
            plain=one.members[0].label if unique(one, one.members[0].label) else "",
        )
        for one in groups
    ]


def _settings(one: Group) -> _Settings:
    run = one.members[0]
    whole = {key: value for key, value in flat(json.loads(run.identity)).items() if value != {}}
    rest = {k: v for k, v in whole.items() if not k.startswith("settings.") and k not in OWN_COLUMN}
    other = {k: v for k, v in rest.items() if v != _usual(k)}
    return _Settings(one, whole, json.loads(run.given), other)


def _brief(key: str, value: Any) -> str:
    """A setting, its number with at most four digits."""
    return assigned(key, float(f"{value:.4g}") if isinstance(value, float) else value)


def _alike(values: Iterable[Any]) -> bool:
    return len({json.dumps(value) for value in values}) <= 1


def _usual(key: str) -> Any:
    """What a setting is by default, None where nothing says."""
    return _defaults().get(key)


@cache
def _defaults() -> dict[str, Any]:
    return flat(RunConfig(method="", benchmark="").model_dump(mode="json"))
