"""Checks of settings and ladders that several methods share."""

from __future__ import annotations

from dataclasses import fields

from harness.api import ConfigError, Ladder, Method, near


def larger_rungs(ladder: Ladder, student: str) -> tuple[str, ...]:
    """The rungs above the student, largest first. Raises `ConfigError` where there is none."""
    if student not in ladder:
        raise ConfigError(f"student {student!r} is not a rung of the ladder: {near(student, ladder)}")
    above = tuple(ladder[: ladder.index(student)])
    if not above:
        raise ConfigError(
            f"student {student!r} is the largest rung of {' > '.join(ladder)}: expected a smaller one, for a "
            "larger rung has to teach it; choose another student, or the method 'finetune'"
        )
    if "student" in above:
        raise ConfigError(
            "a rung larger than the student is called 'student': expected another name, since the "
            "student's role has this one; rename the rung in the ladder"
        )
    return above


def check_ranges(method: Method, **ranges: tuple[float, float]) -> None:
    """Raise `ConfigError` for the first setting of `method` that lies outside its range (ends included)."""
    defaults = {field.name: field.default for field in fields(method)}
    for name, (low, high) in ranges.items():
        value = getattr(method, name)
        if not low <= value <= high:  # NaN lies in no range
            raise ConfigError(
                f"{method.name}: {name} = {value!r}: expected a number from {low:g} to {high:g}; "
                f"the default is {defaults[name]}"
            )
