"""The ranking: one row a method and setting, over its seeds, computed from the stored predictions.

Runs are ranked together only where they saw the same data (benchmark, revision, fingerprint): each such set
is a table of its own. A run that gives no figures (failed, interrupted, without predictions) is counted in
its row's note. The controls (majority, random, runs without images, ...) have a row, without a rank, in every
table that has them in the store; one that beats chance is flagged.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import controls, stats
from harness.api import Split
from harness.errors import ConfigError, DataError, StoreError, near
from harness.metrics import LOWER_IS_BETTER
from harness.record import Interval, Record
from harness.store import Store

WIDTH = 110
SHOWN = ("accuracy", "macro_f1")
"""The metrics that every table shows, beside the one that it is sorted by."""
NOT_COMPARED = frozenset(
    {
        "seed",
        "tags",
        "cluster",
        "plugins",
        "save_student",
        "data_dir",
        "train_on_data_dir",
        "evaluate",
        "method",
        "benchmark",
        "control",
    }
)
"""Parts of a run's configuration that don't part rows: they aren't the method's, or have a column."""


class Row(BaseModel):
    """A line of the ranking. Figures are means over the seeds; `values` are fractions by metric."""

    model_config = ConfigDict(frozen=True)

    rank: int | None = None
    """From 1 within its table; None for controls and for rows without a figure."""
    benchmark: str
    revision: str
    fingerprint: str
    split: str
    kind: Literal["run", "control"]
    method: str
    label: str
    """The method with the settings that its user set, and what else tells it from its neighbours."""
    ladder: str
    student: str
    seeds: tuple[int, ...]
    examples: int
    groups: int
    metric: str
    """The metric that the table is sorted by."""
    values: dict[str, Interval]
    train_tflops: float | None
    """TFLOPs of a run's training, teachers included."""
    train_seconds: float | None
    forwards_per_answer: float | None
    parameters: int | None
    run_ids: tuple[str, ...]
    chance: float | None = None
    """The accuracy of a uniform guess, where the record says it."""
    note: str = ""

    @property
    def figure(self) -> float | None:
        """The value that the table is sorted by."""
        return self.values[self.metric].value if self.metric in self.values else None

    @property
    def data_key(self) -> tuple[str, str, str, str]:
        """What rows must share to be ranked together."""
        return self.benchmark, self.revision, self.fingerprint, self.split


# --------------------------------------------------------------------------------------- the rows


def table(store: Store, benchmark: str | None = None, metric: str = "accuracy", split: Split = "test") -> list[Row]:
    """The rows of all tables, one table after another, best first.

    `metric` is one of `stats.METRICS`, `accuracy/<category>` or a protocol's figure. Raises `ConfigError` for
    a benchmark, metric or split that no run in the store has.
    """
    everything = [r for r in store.records() if r.kind != "robustness"]
    records = [r for r in everything if benchmark in (None, r.benchmark)]
    if benchmark is not None and not records:
        known = {r.benchmark for r in everything}
        raise ConfigError(f"no run of benchmark {benchmark!r} in the store; {near(benchmark, known)}")
    _check_figures([r for r in records if r.status == "done"], metric, split)
    tables: dict[tuple[str, str, str], list[Row]] = {}
    for (data_key, _), members in _grouped(records).items():
        tables.setdefault(data_key, []).append(_row(store, data_key, members, metric, split))
    rows: list[Row] = []
    for data_key in sorted(tables):
        rows += _ranked(_flagged(_told_apart(tables[data_key], {r.run_id: r for r in records})))
    return rows


def _check_figures(done: Sequence[Record], metric: str, split: str) -> None:
    if not done:
        return
    splits = {name for record in done for name in record.metrics}
    if split not in splits:
        raise ConfigError(f"no run was scored on split {split!r}; {near(split, splits)}")
    metrics = {name for record in done for name in record.metrics.get(split, {})} | set(stats.METRICS)
    if metric not in metrics:
        raise ConfigError(f"no run has metric {metric!r} on split {split!r}; {near(metric, metrics)}")


def _grouped(records: Sequence[Record]) -> dict[tuple[tuple[str, str, str], str], list[Record]]:
    """Records by (data, row). A run that failed before it read its data joins its row's latest data."""
    groups: dict[tuple[tuple[str, str, str], str], list[Record]] = defaultdict(list)
    latest: dict[tuple[str, str], tuple[str, str, str]] = {}
    for record in sorted((r for r in records if r.data), key=lambda r: r.provenance.finished):
        assert record.data is not None
        data_key = (record.benchmark, record.data.revision, record.data.fingerprint)
        groups[data_key, _row_key(record)].append(record)
        latest[record.benchmark, _row_key(record)] = data_key
        latest[record.benchmark, ""] = data_key
    for record in (r for r in records if not r.data):
        row_key = _row_key(record)
        known = latest.get((record.benchmark, row_key)) or latest.get((record.benchmark, ""))
        groups[known or (record.benchmark, "", ""), row_key].append(record)
    return groups


def _row_key(record: Record) -> str:
    compared = {key: value for key, value in record.config.items() if key not in NOT_COMPARED | {"settings"}}
    parts = [record.kind, record.method, record.settings, record.ladder, record.student, compared]
    return json.dumps(parts, sort_keys=True)


def _row(store: Store, data_key: tuple[str, str, str], members: Sequence[Record], metric: str, split: Split) -> Row:
    notes: Counter[str] = Counter(r.status for r in members if r.status != "done")
    done: dict[int, Record] = {}
    frames: dict[int, pd.DataFrame] = {}
    for record in sorted((r for r in members if r.status == "done"), key=lambda r: r.provenance.finished):
        try:
            frame = store.predictions(record.run_id, split)
        except StoreError:
            frame = pd.DataFrame()
        if not len(frame):
            notes["without predictions"] += 1
            continue
        notes["superseded by a later run of the same seed"] += record.seed in done
        done[record.seed], frames[record.seed] = record, frame
    used = [done[seed] for seed in sorted(done)]
    said = [f"{count} {what}" for what, count in notes.items() if count]
    if len(codes := {r.provenance.code for r in used}) > 1:
        said.append(f"seeds of {len(codes)} versions of the code")
    try:
        values = _values(used, [frames[r.seed] for r in used], metric, split)
    except DataError as error:
        values, said = {}, [*said, f"no figures: {error}"]
    one, answers = members[0], frames[used[0].seed] if used else pd.DataFrame({"group": []})
    forwards = [r.cost.test_forwards / len(answers) for r in used if split == "test" and not r.provenance.imported]
    return Row(
        benchmark=data_key[0],
        revision=data_key[1],
        fingerprint=data_key[2],
        split=split,
        kind="control" if one.kind == "control" else "run",
        method=one.method,
        label=_label(one.method, one.config.get("settings", {})),
        ladder=one.ladder,
        student=one.student,
        seeds=tuple(sorted(done)),
        examples=len(answers),
        groups=int(answers["group"].nunique()),
        metric=metric,
        values=values,
        train_tflops=_mean(r.cost.train_flops / 1e12 for r in used if not r.provenance.imported),
        train_seconds=_mean(r.cost.train_seconds for r in used if not r.provenance.imported),
        forwards_per_answer=_mean(forwards),
        parameters=next((r.parameters for r in used if r.parameters is not None), None),
        run_ids=tuple(r.run_id for r in (used or members)),
        chance=_mean(r.metrics[split]["chance"].value for r in used if "chance" in r.metrics.get(split, {})),
        note=", ".join(said),
    )


def _values(used: Sequence[Record], frames: Sequence[pd.DataFrame], metric: str, split: str) -> dict[str, Interval]:
    """Each shown metric over the seeds; one that only a protocol computes has no interval over seeds."""
    if not used:
        return {}
    labels = used[0].data.options if used[0].data else None
    values = {}
    for name in dict.fromkeys((*SHOWN, metric)):
        stored = [r.metrics[split][name] for r in used if name in r.metrics.get(split, {})]
        if name in stats.METRICS or (name.startswith("accuracy/") and len(stored) == len(used)):
            values[name] = stats.across_seeds(frames, labels, name)
        elif len(stored) == 1 == len(used):
            values[name] = stored[0]
        elif stored and len(stored) == len(used):
            values[name] = Interval(value=sum(s.value for s in stored) / len(stored))
    return values


def _ranked(rows: Iterable[Row]) -> list[Row]:
    """Best first; rows without a figure last; ranks count the runs only, and equal figures share one."""

    def order(row: Row) -> tuple[bool, float, str, str]:
        sign = 1 if row.metric in LOWER_IS_BETTER else -1
        return row.figure is None, sign * (row.figure or 0), row.label, row.student

    ordered = sorted(rows, key=order)
    figures = [r.figure for r in ordered if r.kind == "run" and r.figure is not None]
    return [
        row.model_copy(update={"rank": figures.index(row.figure) + 1})
        if row.kind == "run" and row.figure is not None
        else row
        for row in ordered
    ]


def _told_apart(rows: Sequence[Row], records: Mapping[str, Record]) -> list[Row]:
    """Rows of one table that would read alike get the parts of their configuration that differ."""
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        alike[row.label, row.student].append(row)
    result = []
    for same in alike.values():
        configs = [_flat(_identity(records[row.run_ids[0]])) for row in same]
        keys = sorted({key for config in configs for key in config})
        differing = [key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1]
        for row, config in zip(same, configs, strict=True):
            extra = _label("", {key: config.get(key) for key in differing})
            result.append(row.model_copy(update={"label": (row.label + extra)}))
    return result


def _flagged(rows: Sequence[Row]) -> list[Row]:
    """A control whose interval lies above chance has that in its note: see `controls.flag`."""
    constant = [r.values["accuracy"].value for r in rows if controls.is_constant(r.method) and "accuracy" in r.values]
    result = []
    for row in rows:
        said = ""
        if row.kind == "control" and row.chance is not None and "accuracy" in row.values:
            said = controls.flag(row.method, row.values["accuracy"], row.chance, max(constant, default=None))
        result.append(row.model_copy(update={"note": ", ".join(filter(None, (row.note, said)))}) if said else row)
    return result


def _identity(record: Record) -> dict[str, Any]:
    config = {key: value for key, value in record.config.items() if key not in NOT_COMPARED}
    return config | {"settings": record.settings, "ladder": record.ladder}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def _label(method: str, settings: Mapping[str, Any]) -> str:
    parts = (f" {k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in _flat(settings).items())
    return method + "".join(parts)


def _mean(numbers: Iterable[float]) -> float | None:
    values = list(numbers)
    return sum(values) / len(values) if values else None


# ----------------------------------------------------------------------------------- how they are shown

LEGEND = (
    "Means over n seeds, in per cent, with 95 % intervals by bootstrap over seeds and images. "
    "Training cost is a run's, teachers included."
)


def to_text(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The tables as plain text, at most 110 columns wide."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    for heading, part in _tables(rows):
        console.print(heading)
        grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for name, align in _columns(part):
            grid.add_column(name, justify=align, overflow="fold", no_wrap=name not in ("method", "student"))
        for row in part:
            grid.add_row(*(Text(cell) for cell in _cells(row)))
        console.print(grid)
        for line in _footnotes(part):
            console.print(line)
        console.print()
    for line in ([_legend(rows)] if rows else ["No runs."]) + list(notes):
        console.print(line)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def to_markdown(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The tables in Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    out: list[str] = []
    for heading, part in _tables(rows):
        columns = _columns(part)
        out += [f"**{heading}**", "", line(name for name, _ in columns)]
        out += ["|" + "|".join("---:" if align == "right" else "---" for _, align in columns) + "|"]
        out += [*(line(_cells(row)) for row in part), ""]
        out += [f"- {note}" for note in _footnotes(part)]
        out += [""] if _footnotes(part) else []
    out += [_legend(rows) if rows else "No runs.", *(f"- {note}" for note in notes)]
    return "\n".join(out) + "\n"


def to_json(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """One JSON document: `rows`, each with all its fields (fractions, not per cent), and `notes`."""
    return json.dumps({"rows": [row.model_dump(mode="json") for row in rows], "notes": list(notes)}, indent=1)


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row, with a header; figures are fractions; lists are separated by spaces."""
    metrics = dict.fromkeys([*SHOWN, *(name for row in rows for name in row.values)])
    plain = [name for name in Row.model_fields if name not in ("values", "metric")]
    bounds = [(name, bound) for name in metrics for bound in ("value", "low", "high")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(plain + [name if bound == "value" else f"{name}_{bound}" for name, bound in bounds])
    for row in rows:
        cells = [getattr(row, name) for name in plain]
        cells = [" ".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in cells]
        writer.writerow(cells + [getattr(row.values.get(name), bound, None) for name, bound in bounds])
    return out.getvalue()


def _legend(rows: Sequence[Row]) -> str:
    protocol = next((row.metric for row in rows if ":" in row.metric), None)
    return LEGEND + (f" {protocol} is in the protocol's own unit." if protocol else "")


def _tables(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Rows by table, each with its heading."""
    parts = [(key, list(part)) for key, part in groupby(rows, key=lambda row: row.data_key)]
    versions = Counter((benchmark, split) for (benchmark, _, _, split), _ in parts)
    result = []
    for (benchmark, revision, fingerprint, split), part in parts:
        largest = max(part, key=lambda row: row.examples)
        heading = f"{benchmark}, {split} split: {largest.examples} examples about {largest.groups} images"
        if fingerprint:
            heading += f" (revision {revision}, data {fingerprint[:12]})"
        if (count := versions[benchmark, split]) > 1:
            heading += f"\nThe store has runs on {count} versions of these data, ranked apart."
        result.append((heading, part))
    return result


def _columns(part: Sequence[Row]) -> list[tuple[str, Literal["left", "right"]]]:
    shown = (name.replace("macro_f1", "macro-F1") for name in _shown(part[0].metric))
    names = ["#", "method", "student", "n", *shown, "TFLOPs", "train s", "params"]
    return [(name, "left" if name in ("method", "student") else "right") for name in names]


def _shown(metric: str) -> list[str]:
    return list(SHOWN if metric in SHOWN else (metric, *SHOWN))


def _cells(row: Row) -> list[str]:
    metrics = _shown(row.metric)
    # A third metric leaves no room for three intervals: then only the one that sorts has its own.
    bounds = {name: len(metrics) == 2 or name == row.metric for name in metrics}
    return [
        str(row.rank or ""),
        row.label,
        row.student,
        str(len(row.seeds)),
        *(_figure(name, row.values.get(name), bounds[name]) for name in metrics),
        _short(row.train_tflops) if row.parameters != 0 else "",
        _short(row.train_seconds) if row.parameters != 0 else "",
        _count(row.parameters) if row.parameters != 0 else "",
    ]


def _footnotes(part: Sequence[Row]) -> list[str]:
    return [f"{row.label}{f', {row.student}' if row.student else ''}: {row.note}" for row in part if row.note]


def _figure(name: str, value: Interval | None, bounds: bool) -> str:
    """In per cent; a protocol's figure as its original prints it."""
    if value is None:
        return "-"
    if ":" in name:
        return f"{value.value:.4f}"
    text = f"{100 * value.value:.1f}"
    if value.low is None or value.high is None or not bounds:
        return text
    return f"{text} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _short(number: float | None) -> str:
    """Three significant digits, without an exponent from 1 to a million."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if 100 <= number < 1e6 else f"{number:.3g}"


def _count(number: int | None) -> str:
    if number is None:
        return "-"
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
