"""The format of figures and names in table cells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.leaderboard.schema import Delta
from harness.record import Interval

if TYPE_CHECKING:
    from harness.stats.inference import Difference


def sentence(note: str) -> str:
    """A note as a sentence of its own."""
    return f"{note[0].upper()}{note[1:]}."


def percent(value: Interval | None, bounds: bool = True, own_unit: bool = False) -> str:
    """A fraction in per cent, with its interval if there is one and `bounds` is set; `own_unit`: unchanged."""
    if value is None:
        return "-"
    if own_unit:
        return four_digits(value.value)
    text = f"{100 * value.value:.1f}"
    if value.low is None or value.high is None or not bounds:
        return text
    return f"{text} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def plain(value: Interval | None, digits: int = 2) -> str:
    """A number, unchanged, with its interval if there is one."""
    if value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.value:.{digits}f}"
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def points(found: Delta | Difference) -> str:
    """A difference of fractions in percentage points, with its interval if there is one."""
    text = f"{100 * found.value:+.1f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def difference(delta: Delta | None, baseline: bool) -> str:
    """A difference in points, with its interval; a star if its raw p is below 0.05, two if Holm's p is, too."""
    if delta is None:
        return "baseline" if baseline else "-"
    return points(delta) + "*" * sum(p is not None and p < 0.05 for p in (delta.p, delta.p_holm))


def p_value(p: float | None) -> str:
    """A p to two significant digits, `< 0.0001` where it is smaller."""
    if p is None:
        return "-"
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def short(number: float | None) -> str:
    """Three significant digits, four from 1,000 to 10,000, and thousands as `k` from there to a million."""
    if number is None:
        return "-"
    if 1e4 <= number < 999_500:
        return f"{number / 1000:.3g}k"
    return f"{number:,.0f}" if 100 <= number < 1e6 else f"{number:.3g}"


def four_digits(number: float) -> str:
    """Four significant digits, trailing zeros included; from 10,000 on a whole number."""
    return f"{number:,.0f}" if 1e4 <= abs(number) < 1e9 else f"{number:#.4g}".rstrip(".")


def forwards_apart(numbers: Iterable[float | None]) -> str:
    """The note that rows differ in the number of forward passes per answer; empty if they don't, or it is unknown."""
    said = {short(number): number for number in numbers if number}
    if len(said) < 2:
        return ""
    *first, last = sorted(said, key=lambda name: said[name])
    return (
        f"rows differ in the forward passes of the student per answer ({', '.join(first)} or {last}), so they can't be "
        "compared on equal terms"
    )


def count(number: int | None) -> str:
    """A number of parameters in thousands, millions or billions."""
    if number is None:
        return "-"
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def more(number: int | None) -> str:
    """How many more are needed: 0, there are enough; -, no number is enough, or it is unknown."""
    return "-" if number is None else f"+{number:,}" if number > 0 else "0"


def one_line(text: str) -> str:
    """Text without line breaks, control and escape sequences: a name in a record can't break a table."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)
