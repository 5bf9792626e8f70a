"""Scores a file of answers with a benchmark's own protocols, and imports such a file into the store as a run.

Neither needs a model. This module imports neither torch nor ray.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import provenance, registry
from harness.api import Benchmark, Example, Split
from harness.config import EvaluateConfig
from harness.data import dataset as data
from harness.errors import ConfigError, near
from harness.evaluation import answer_files
from harness.evaluation.answer_files import chosen_and_text, load_splits, match, refuse_missing
from harness.evaluation.choices import READING
from harness.evaluation.controls import is_control_name, write_controls
from harness.evaluation.scoring import answer, data_record, figures_of
from harness.record import Provenance, Record
from harness.store import PredictionRow, Store, predictions_frame

TAG = "imported"


def score_file(
    benchmark: Benchmark, path: Path, protocol: str | None, split: Split | None = None, allow_missing: bool = False
) -> dict[str, Any]:
    """The figures of a protocol for the answers in a file: `figures` by name, None where undefined.

    Without `split`, all splits are scored that the file has answers for. Every example that the protocol
    uses needs an answer; with `allow_missing`, missing answers are scored as the protocol defines it
    (`Benchmark.unanswered`). Raises `ConfigError` or `DataError`.
    """
    protocols = benchmark.protocols()
    if protocol is None or protocol not in protocols:
        asked = f"unknown protocol {protocol!r}" if protocol else "no protocol given (--protocol)"
        raise ConfigError(f"benchmark {benchmark.name!r}: {asked}; {near(protocol or '', protocols)}")
    given = answer_files.read(path)
    matched = match(benchmark, load_splits(benchmark), given, split)
    matched = answer_files.MatchedAnswers([a for a in matched.answers if benchmark.asked(protocol, a[1])])
    rule = benchmark.unanswered.get(protocol)
    if not allow_missing or rule is None:
        refuse_missing(matched, given, _advice(benchmark, protocol))
    kept = [a for a in matched.answers if a[2] is not None or rule == "wrong"]
    answers = [answer(e, chosen, text) for e, chosen, text in chosen_and_text(kept)]
    figures = dict(protocols[protocol](answers))
    return {
        "benchmark": benchmark.name,
        "revision": benchmark.revision,
        "protocol": protocol,
        "splits": matched.splits,
        "examples": len(matched.answers),
        "missing": len(matched.missing),
        "figures": figures,
        "undefined": [name for name, value in figures.items() if value is None],
        "about": inspect.getdoc(protocols[protocol]) or "",
    }


def _advice(benchmark: Benchmark, protocol: str) -> str:
    rule = benchmark.unanswered.get(protocol)
    if rule is None:
        return f"protocol {protocol!r} needs an answer to every example"
    return f"with --allow-missing protocol {protocol!r} counts them as {rule}"


def score_text(found: Mapping[str, Any]) -> str:
    """`score_file`'s figures as text."""
    lines = [
        f"{found['benchmark']} ({found['revision']}), protocol {found['protocol']}: {found['examples']} examples of "
        f"{', '.join(found['splits'])}" + (f", {found['missing']} without an answer" if found["missing"] else "")
    ]
    width = max(map(len, found["figures"]), default=0)
    for name, value in found["figures"].items():
        shown = "undefined" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        lines.append(f"  {name:{width}}  {shown}")
    return "\n".join([*lines, "", found["about"]])


# ------------------------------------------------------------------------------------------- importing


def import_run(
    path: Path,
    benchmark: Benchmark,
    benchmark_settings: Mapping[str, Any],
    name: str,
    store: Store,
    split: Split | None = None,
    seed: int = 0,
    tags: tuple[str, ...] = (),
    skip_missing: bool = False,
) -> Record:
    """Write the answers in a file to the store as a run of the method `name`, and return its record.

    Every example of `split`, or of the splits that the file has answers for, needs an answer. One that can't be read
    as an option is stored as text: it is wrong for the harness's metrics, and a protocol applies its own parser
    to it. With `skip_missing`, examples whose image is missing are left out, as in a run with that setting:
    rows can only be ranked together on the same data. If no image is there, the answers are scored all the same; such
    a row is ranked with others that were made without images. The same answers give the same run again. The
    benchmark's model-free controls are written too unless the store has them.
    Raises `ConfigError`, `DataError` or `StoreError`.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}", name):
        raise ConfigError(f"name {name!r}: expected at most 40 letters, digits and . _ + -, a letter or digit first")
    if name in registry.methods():
        raise ConfigError(f"name {name!r} is the name of a method; choose one that says where the answers come from")
    if is_control_name(name):
        raise ConfigError(f"name {name!r} is that of a control; choose one that says where the answers come from")
    started = provenance.now()
    given = answer_files.read(path)
    everything = load_splits(benchmark)
    imageless = not skip_missing and _no_image(everything)
    dataset = data.load(benchmark, skip_missing=skip_missing, need_images=not imageless)
    matched = match(benchmark, everything, given, split)
    kept = {(one, e.id) for one, examples in dataset.splits.items() for e in examples}
    matched = answer_files.MatchedAnswers([a for a in matched.answers if (a[0], a[1].id) in kept])
    refuse_missing(matched, given, "a run answers every example of its splits")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = [benchmark.revision, dataset.fingerprint, matched.splits, digest, seed, READING]
    run_id = f"{TAG}-{name.replace('+', '-')}-{benchmark.name}-s{seed}-{_short(identity)}"
    if (record := store.finished(run_id)) is not None:
        return record
    store.check_writable()
    frame = predictions_frame(
        PredictionRow(split, e.id, e.group, e.category, e.known_gold, chosen, [], 0.0, text)
        for (split, _, _), (e, chosen, text) in zip(matched.answers, chosen_and_text(matched.answers), strict=True)
    )
    data_, evaluate = data_record(dataset, None if imageless else dataset), EvaluateConfig()
    made_by = Provenance(
        **provenance.static(),
        sources=provenance.sources({f"benchmark {benchmark.name}": type(benchmark)}),
        started=started,
        finished=provenance.now(),
    )
    write_controls(store, dataset, data_, evaluate, made_by)
    record = Record(
        run_id=run_id,
        status="done",
        benchmark=benchmark.name,
        task=benchmark.task,
        method=name,
        seed=seed,
        tags=[TAG, *tags],
        config={
            "method": name,
            "benchmark": benchmark.name,
            "benchmark_settings": dict(benchmark_settings),
            "skip_missing": skip_missing,
        },
        metrics=figures_of(dataset, frame, evaluate.resamples),
        data=data_,
        provenance=made_by.model_copy(update={"imported": f"{path.name} sha256:{digest}"}),
    )
    store.write(record, frame)
    return store.read(run_id)  # with its checksums


def _no_image(splits: Mapping[Split, Sequence[Example]]) -> bool:
    """Whether the benchmark's images are files, and none of them is there."""
    files = {one for examples in splits.values() for e in examples for one in e.images if isinstance(one, Path)}
    return bool(files) and not any(path.is_file() for path in files)


def _short(identity: object) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
