"""A run's record as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from harness.record import Interval, Mix, Record, RoleRecord


def mix_text(mix: Mix) -> str:
    """The mix as one line."""
    kinds = sorted(set(mix.families.values()))
    of = f"{kinds[0]} models" if len(kinds) == 1 else "models of " + ", ".join(kinds)
    if mix.over == "vocabulary":
        cut = ", ".join(f"{name} {rows:,}" for name, rows in mix.rows.items())
        return f"{of}, compared over {mix.tokens:,} tokens (rows of the output layers: {cut})"
    spelled = "" if mix.tokenizers == "one" else ", each tokenizer with its own spellings of the letters"
    return f"{of}, compared over the options{spelled}"


def record_text(record: Record) -> str:
    """A run's record as text."""
    lines = [f"{record.run_id}   {record.status}"]
    if record.error:
        at = f" (stage {record.error.stage!r}, step {record.error.step})" if record.error.stage else ""
        lines.append(f"  {record.error.type}{at}: {record.error.message}")
    lines.append(f"  {record.method} on {record.benchmark} ({record.task}), seed {record.seed}")
    if record.student:
        lines.append(f"  student {record.student} of ladder {record.ladder}, {record.parameters or 0:,} parameters")
    if record.settings:
        settings = ", ".join(f"{name}={value}" for name, value in record.settings.items())
        lines += textwrap.wrap(f"  settings: {settings}", 110, subsequent_indent="    ")
    lines += _stages(record)
    if record.preflight:
        lines += [f"  warning: {warning}" for warning in record.preflight.warnings]
    for split, figures in record.metrics.items():
        lines.append(f"  {split}")
        lines += [f"    {name:28} {interval(value)}" for name, value in figures.items()]
    return "\n".join([*lines, *_cost(record), *_origin(record)])


def _kind(role: RoleRecord) -> str:
    return "" if role.trainable else f", average of {role.average_of}" if role.average_of else ", frozen"


def _stages(record: Record) -> list[str]:
    lines = []
    for stage in record.stages:
        roles = ", ".join(f"{n} ({r.weights}{_kind(r)})" for n, r in stage.roles.items())
        best = ", ".join(f"{n} {v:.3f}" for n, v in stage.best.items())
        lines.append(
            f"  stage {stage.name}: {stage.steps} steps, {stage.examples} examples; {roles}; validation {best}"
            + ("; reused from another run" if stage.taken_over else "")
        )
        lines += [f"    {mix_text(stage.mix)}"] if stage.mix else []
    return lines


def _cost(record: Record) -> list[str]:
    if record.provenance.imported:
        return [f"  answers imported from {record.provenance.imported}"]
    if record.kind != "run" or record.status != "done":
        return []
    c = record.cost
    return [
        f"  cost: training {c.train_flops / 1e12:.3f} TFLOP, {c.train_seconds:.1f} s; validation "
        f"{c.validation_seconds:.1f} s; test {c.test_seconds:.1f} s, {c.test_forwards} forwards; "
        f"total {c.total_seconds:.1f} s",
        *(
            f"    {name:20} {r.forwards:8} forwards  {r.trained:8} trained  "
            f"{r.flops / 1e12:9.3f} TFLOP  {r.seconds:7.1f} s"
            + (f"  {r.recalled} from the cache" if r.recalled else "")
            + (f", {r.shared} from another run" if r.shared else "")
            for name, r in c.roles.items()
        ),
    ]


def _origin(record: Record) -> list[str]:
    """The code, the time and the data of a run."""
    p = record.provenance
    git = f", git {p.git_commit[:10]}{' (modified)' if p.git_dirty else ''}" if p.git_commit else ""
    lines = [f"  {p.package}{git}; {p.started} to {p.finished}; {p.workers} workers; resumed {p.resumed} times"]
    if record.data:
        lines.append(f"  data revision {record.data.revision}, fingerprint {record.data.fingerprint[:12]}")
        if record.data.skipped:
            left_out = ", ".join(f"{split} {count}" for split, count in record.data.skipped.items())
            lines.append(f"  left out, image missing or damaged: {left_out}")
        lines += _leaks(record.data.leaks)
    if other := record.trained_on:
        lines.append(
            f"  trained on {other.benchmark}, revision {other.data.revision}, fingerprint {other.data.fingerprint[:12]}"
        )
        lines += _leaks(other.data.leaks) + _leaks(other.leaks, f"{other.benchmark}/", f"{record.benchmark}/")
    return lines


def _leaks(found: Mapping[str, Mapping[str, int]] | None, first: str = "", second: str = "") -> list[str]:
    """One line per pair of splits with common examples; `first` and `second` are prefixes of the splits' names."""
    lines = []
    for pair, shared in (found or {}).items():
        where = " and ".join(p + s for p, s in zip((first, second), pair.split("/"), strict=True)) if first else pair
        counts = ", ".join(f"{count} {kind}" for kind, count in shared.items())
        lines.append(f"  {where}: examples of the second with a duplicate in the first: {counts}")
    return lines


def interval(value: Interval) -> str:
    """A figure as it is stored (a fraction), with its interval if there is one."""
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f}  [{value.low:.4f}, {value.high:.4f}]"
