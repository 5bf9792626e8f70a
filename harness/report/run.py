"""A run's record as text: what it found, the command that runs it, and what came of training it again."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.config import RunConfig
from harness.record import Interval, Mix, Record, Reproduction, RoleRecord
from harness.settings import to_toml, toml_key


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
        *([] if c.data_seconds is None else [f"    waited for data: {c.data_seconds:.1f} s of training"]),
        *([] if (paid := price(record)) is None else [f"    price: {paid:,.2f}"]),
        *(
            f"    {name:20} {r.forwards:8} forwards  {r.trained:8} trained  "
            f"{r.flops / 1e12:9.3f} TFLOP  {r.seconds:7.1f} s"
            + (f"  {r.recalled} from the cache" if r.recalled else "")
            + (f", {r.shared} from another run" if r.shared else "")
            for name, r in c.roles.items()
        ),
    ]


def price(record: Record) -> float | None:
    """What a finished run cost, from its workers' time and `cluster.price_per_hour`; None: without a price."""
    cluster = record.config.get("cluster")
    each = cluster.get("price_per_hour") if isinstance(cluster, Mapping) else None
    if not isinstance(each, int | float) or record.status != "done":
        return None
    return each * record.cost.total_seconds / 3600 * max(record.provenance.workers, 1)


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


# ------------------------------------------------------------------------------- how to run it again

_NOT_THE_RUN = ("data_dir", "train_on_data_dir", "track", "tags", "label")
"""Parts of a configuration that no number depends on, and that are of the machine or the store."""
_FLAGS = ("method", "benchmark", "ladder", "student", "seed")


def configuration(record: Record) -> str:
    """The run's configuration as a TOML file for `hkdbench run FILE`; empty if it wasn't trained from one."""
    config = _own(record)
    lines = [f"{name} = {to_toml(v)}" for name, v in config.items() if v is not None and not isinstance(v, Mapping)]
    for name, table in config.items():
        if isinstance(table, Mapping) and table:
            lines += ["", f"[{name}]", *(f"{toml_key(k)} = {to_toml(v)}" for k, v in table.items() if v is not None)]
    return "\n".join(lines) + "\n" if config else ""


def command(record: Record) -> str:
    """The command that makes the run again, without the folder of published files; empty if it has none."""
    config = _own(record)
    if not config:
        return ""
    usual = RunConfig(method=config["method"], benchmark=config["benchmark"]).model_dump(mode="json")
    words = ["hkdbench", "run"]
    for name in _FLAGS:
        if isinstance(config.get(name), str | int):
            words += [f"--{name}", str(config[name])]
    for plugin in config.get("plugins", ()):
        words += ["--plugin", plugin]
    rest = {k: v for k, v in config.items() if k != "plugins" and not (k in _FLAGS and isinstance(v, str | int))}
    for name, value in _changed(rest, usual):
        words += ["--set", f"{name}={_plain(value)}"]
    return shlex.join(words)


def _own(record: Record) -> dict[str, Any]:
    """The recorded configuration, without what isn't the run's; {} for a record without a student or a full one."""
    config = record.config
    if not record.student or record.kind == "robustness" or not {"method", "benchmark"} <= config.keys():
        return {}
    return {name: value for name, value in config.items() if name not in _NOT_THE_RUN}


def _changed(table: Mapping[str, Any], usual: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings that aren't the usual ones, with dotted names; a table with a dot in a name as a whole."""
    for name, value in table.items():
        default = usual.get(name) if isinstance(usual, Mapping) else None
        if value is None or value == default:
            continue
        if isinstance(value, Mapping) and value and all("." not in key for key in value):
            yield from _changed(value, default, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> str:
    """A value for `--set`: a word without quotes."""
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w-]*", value) and value not in ("true", "false")
    return str(value) if word and value not in ("inf", "nan") else to_toml(value)


# ---------------------------------------------------------------------------------- trained again

VERDICTS = {"equal": "reproduced, bit for bit", "agrees": "reproduced, within the seeds", "differs": "NOT reproduced"}


def reproduction_text(found: Reproduction) -> str:
    """What came of training a run again, as text."""
    p = found.provenance
    at = f" at commit {p.git_commit[:12]}" if p.git_commit else ""
    lines = [f"{found.run_id}: {VERDICTS[found.verdict]}", f"  trained again by {p.package}{at}, {p.finished}"]
    lines += [f"  different: {text}" for text in found.differences]
    lines += [f"  also different, but changes no number: {text}" for text in found.notes]
    for split, one in found.splits.items():
        known = (
            "how much seeds differ is unknown here" if one.limit is None else f"two seeds: up to {_points(one.limit)}"
        )
        lines.append(
            f"  {split}: {100 * one.equal:.1f} % of {one.examples:,} answers are equal; accuracy "
            f"{100 * one.recorded:.1f} % recorded, {100 * one.again:.1f} % again "
            f"({100 * one.difference:+.1f} points; {known})"
        )
    return "\n".join([*lines, f"  {_why(found)}"])


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _why(found: Reproduction) -> str:
    if found.verdict == "equal":
        return "Every answer and score has the recorded bits."
    if found.verdict == "agrees":
        return "Equal bits can't be expected, and the difference is no larger than that of two seeds."
    if found.differences:
        return "The difference is larger than that of two seeds, or nobody knows how large that is."
    return "The same code on the same machine gives other answers: the recorded ones aren't from this training."


def audit_text(found: Sequence[tuple[str, Reproduction | None, str]]) -> str:
    """The results of an audit as a table: run, result, equal answers, accuracy recorded and again, in per cent."""
    width = max(len(run_id) for run_id, _, _ in found)
    lines = [f"{'run':{width}}  {'result':29}  {'split':10}  equal  recorded  again  difference  two seeds"]
    for run_id, one, problem in found:
        if one is None:
            lines.append(f"{run_id:{width}}  can't be checked: {problem}")
            continue
        split, worst = min(one.splits.items(), key=lambda item: (item[0] != "test", item[0]))
        limit = "unknown" if worst.limit is None else f"{100 * worst.limit:.1f}"
        lines.append(
            f"{run_id:{width}}  {VERDICTS[one.verdict]:29}  {split:10}  {100 * worst.equal:5.1f}  "
            f"{100 * worst.recorded:8.1f}  {100 * worst.again:5.1f}  {100 * worst.difference:+10.1f}  {limit:>9}"
        )
        lines += [f"{'':{width}}  {text}" for text in one.differences]
    compared = [one for _, one, _ in found if one is not None]
    good = sum(one.reproduced for one in compared)
    lines.append(f"{good} of {len(found)} runs reproduced")
    if len(compared) > 1:
        first = [one.splits.get("test") or next(iter(one.splits.values())) for one in compared]
        lines[-1] += f"; on average {100 * fmean(s.difference for s in first):+.2f} points again minus recorded"
    return "\n".join(lines)


def interval(value: Interval) -> str:
    """A figure as it is stored (a fraction), with its interval if there is one."""
    if value.low is None or value.high is None:
        return f"{value.value:.4f}"
    return f"{value.value:.4f}  [{value.low:.4f}, {value.high:.4f}]"
