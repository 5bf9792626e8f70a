"""Whether a run's record agrees with its predictions, its data and its code.

Every figure is recomputed from the stored predictions; hashes, ids, golds and sums are compared with their sources.
Each check has the result `ok`, `changed` (record, files and data contradict one another, or can't be read), or
`unverified` with the reason: data or plugin not available, different code, no checksums. A report also lists what no
check covers. Nothing here trains, loads a model or executes what a record names: plugins are only those that the user
loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness import registry
from harness.api import Method
from harness.data import dataset as dataset_module
from harness.data import leakage
from harness.errors import ConfigError, DataError, StoreError, UserError, first_line
from harness.record import Record
from harness.store import Problem, Store, checksums
from harness.store.schemas import TABLES
from harness.submission import consistency
from harness.submission.bill import Flops, bill_checks
from harness.submission.checks import CheckResult, ExaminedRun, Report, first_few, result_of
from harness.submission.replan import code_checks, identity_checks, not_loaded
from harness.versions import SCORING

MOST_RESAMPLES = 1_000_000
MOST_RECEIVED = 1_000_000
"""The largest number of examples that are made to check a run from elsewhere."""


def verify(store: Store, run_id: str, data_dir: Path | str | None = None, flops: Flops | None = None) -> Report:
    """Check a run of the store; `data_dir` has the published files, if the benchmark reads some.

    `flops` computes exact FLOPs: `harness.submission.flops.plan_flops`, which loads torch. None: they aren't checked.
    Raises `StoreError` if there is no such run.
    """
    try:
        return _verify(store, run_id, data_dir, flops)
    except Exception as error:
        if isinstance(error, StoreError) and not store.backend.exists(run_id):
            raise
        # Whatever a run's files hold, a check that they break has found something.
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return Report(run_id, (CheckResult("record", "changed", f"can't be checked: {kind}{first_line(error)}"),))


def _verify(store: Store, run_id: str, data_dir: Path | str | None, flops: Flops | None) -> Report:
    record = store.load(run_id, sealed=False)
    if isinstance(record, Problem):
        if not store.backend.exists(run_id):
            store.read(run_id)  # raises, with near names
        return Report(run_id, (CheckResult("record", "changed", record.message),))
    trusted = store.received(run_id) is None
    setup = consistency.setup(record.config or _config_from_sibling(store, record))
    run = ExaminedRun(record, setup, trusted)
    found = [result_of("record", consistency.in_record(record, setup), "agrees with itself")]
    broken = checksums.mismatches(record, store.backend) if record.seal else {}
    found += _checksums(record, broken, checksums.missing_student(record, store.backend))
    found += _tables(run, store, broken)
    found += [*_data(run, data_dir), *code_checks(run, data_dir), *identity_checks(run)]
    found += [*_predictions(run), *_training(run, flops), *_attested(run.record, store)]
    return Report(run_id, tuple(found), tuple(consistency.not_checked(record)))


def verify_all(store: Store, data_dir: Path | str | None = None, flops: Flops | None = None) -> Iterator[Report]:
    """Every run of the store, by id."""
    return (verify(store, run_id, data_dir, flops) for run_id in store.ids())


def _config_from_sibling(store: Store, record: Record) -> Mapping[str, Any]:
    """The config of a run on the same data, because an older control lacks its benchmark's settings."""
    return next(
        (
            other.config
            for other in (store.records() if record.data else ())
            if other.config and (other.benchmark, other.data) == (record.benchmark, record.data)
        ),
        {},
    )


# -------------------------------------------------------------------------------------------- files


def _checksums(record: Record, broken: Mapping[str, str], absent: Sequence[str]) -> list[CheckResult]:
    if record.seal is None:
        return [
            CheckResult("seal", "unverified", "the record has no checksums: what can't be recomputed may have changed")
        ]
    results = [CheckResult("seal", "changed", f"{name}: {what}") for name, what in broken.items()]
    present = len(record.seal.files) - len(absent)
    results = results or [CheckResult("seal", "ok", f"record and {present} files have the sha256 in the record")]
    return [*results, CheckResult("student", "unverified", f"{len(absent)} missing files")] if absent else results


def _tables(run: ExaminedRun, store: Store, broken: Mapping[str, str]) -> Iterator[CheckResult]:
    """Read predictions and history. Files that differ from their checksums are already reported, and not read."""
    files, run_id = store.backend.files(run.record.run_id), run.record.run_id
    for name in TABLES:
        file = f"{name}.parquet"
        if file in files and file not in broken:
            try:
                setattr(run, name, store.table(run_id, name, record=run.record).to_pandas())
            except (StoreError, pa.ArrowException, ValueError, MemoryError) as error:
                yield CheckResult(name, "changed", f"{file} can't be read: {first_line(error)}")
        elif (
            file not in files
            and run.record.status == "done"
            and (name == "predictions" or consistency.planned(run.record))
        ):
            yield CheckResult(name, "changed", f"{file} is missing")


# -------------------------------------------------------------------------------- data, code, identity


def _data(run: ExaminedRun, data_dir: Path | str | None) -> Iterator[CheckResult]:
    """Compare the benchmark's present data with those that the run saw."""
    r, seen, settings = run.record, run.record.data, run.setup.benchmark_settings
    if seen is None:
        yield CheckResult("data", "unverified", f"the run is {r.status} and read none")
        return
    try:
        if absent := not_loaded("benchmark", r.benchmark, registry.benchmarks()):
            raise ConfigError(absent)
        benchmark = registry.make_benchmark(r.benchmark, settings, data_dir)
        if benchmark.revision != seen.revision:
            raise DataError(f"the benchmark's revision is {benchmark.revision} now, the run saw {seen.revision}")
        if not run.trusted:
            if sum(seen.sizes.values()) > MOST_RECEIVED:
                raise DataError(f"{sum(seen.sizes.values())} examples are too many for a run from elsewhere")
            for split in benchmark.splits:  # its settings may give any size: don't count beyond the recorded one
                recorded = seen.sizes.get(split, 0) + seen.skipped.get(split, 0)
                if (count := sum(1 for _ in islice(benchmark.load(split), recorded + 1))) != recorded:
                    now = f"{count}{' or more' if count > recorded else ''}"
                    yield CheckResult("data", "changed", f"split {split} has {recorded} examples, the benchmark {now}")
                    return
        dataset = dataset_module.load_data(r.benchmark, settings, data_dir, run.setup.skip_missing)
    except UserError as error:
        yield CheckResult("data", "unverified", first_line(error))
        return
    known = dataset.recognises(seen.fingerprint)
    wrong = [
        f"{what} is {recorded!r}, in the benchmark {now!r}"
        for what, recorded, now in (
            *(() if known else (("fingerprint", seen.fingerprint, dataset.fingerprint),)),
            ("sizes", seen.sizes, dataset.sizes),
            ("options", seen.options, list(dataset.options) if dataset.options else None),
        )
        if recorded != now
    ]
    if known:
        run.dataset = dataset
        if known == "content" and seen.leaks is not None and seen.leaks != (leaks := leakage.exact(dataset)):
            wrong.append(f"leaks are {seen.leaks!s:.200}, in the benchmark {leaks!s:.200}")
    yield result_of("data", wrong, f"{sum(dataset.sizes.values())} examples, fingerprint {seen.fingerprint[:12]}")
    if known == "names":
        older = "the record's fingerprint is an older one, of the names and sizes of image files, not of their content"
        yield CheckResult("images", "unverified", older)


# ------------------------------------------------------------------------------- predictions, training


def _predictions(run: ExaminedRun) -> Iterator[CheckResult]:
    """Answers, golds and figures."""
    frame, r = run.predictions, run.record
    if frame is None:
        return
    if r.kind == "robustness":
        yield CheckResult("figures", "unverified", "robustness figures aren't recomputed")
        return
    yield result_of("answers", consistency.in_answers(frame, r, run.setup), f"{len(frame)}, one per example")
    if run.dataset is None:
        yield CheckResult("golds", "unverified", "the run's data aren't available")
    else:
        golds = consistency.in_golds(frame, run.dataset, reads=_from_text(run))
        yield result_of("golds", golds, "equal to the benchmark's")
        if r.kind == "control" and not r.student:
            yield _control(r, list(consistency.in_control(frame, run.dataset, r)))
    evaluate = run.setup.evaluate
    if evaluate is None or evaluate.resamples > MOST_RESAMPLES:
        resamples = evaluate.resamples if evaluate else "an unknown number of"
        yield CheckResult("figures", "unverified", f"{resamples} resamples; expected at most {MOST_RESAMPLES}")
        return
    found = consistency.figures(frame, r, evaluate.resamples, run.dataset)
    wrong = list(found.wrong)
    if r.provenance.scoring == SCORING:
        wrong += found.intervals
    elif found.intervals:
        other = f"computed by another version of the statistics: {first_few(found.intervals)}"
        yield CheckResult("figures", "unverified", other)
    if found.unknown:
        yield CheckResult("figures", "unverified", f"{first_few(found.unknown)}: that takes the run's data")
    yield result_of("figures", wrong, f"{found.right} recomputed")


def _from_text(run: ExaminedRun) -> bool:
    """Whether each choice is what its text says: the student wrote it, to the question as the benchmark asks it."""
    if run.plan is None or run.plan.config.evaluate.answer != "generate":
        return False
    method = type(run.plan.method)
    return method.views is Method.views and method.fuse is Method.fuse


def _attested(record: Record, store: Store) -> Iterator[CheckResult]:
    """The results of training the run again, if there are any. The last one counts."""
    found, wrong = checksums.reproductions(record, store.backend)
    if not found and not wrong:
        return
    last = found[-1] if found else None
    when = f"trained again at {last.provenance.finished}" if last else ""
    if last and not last.reproduced and last.differences:
        yield CheckResult("reproduced", "unverified", f"{when}, elsewhere, it gave other answers")
        return
    if last and not last.reproduced:
        wrong.append(f"{when}, with the same code on the same machine, it gave other answers")
    yield result_of("reproduced", wrong, f"{when}: {last.verdict}" if last else "")


def _control(record: Record, wrong: list[str]) -> CheckResult:
    if wrong and record.provenance.scoring != SCORING:
        return CheckResult("control", "unverified", f"answered by another version of the controls: {first_few(wrong)}")
    return result_of("control", wrong, "its answers follow from the data")


def _training(run: ExaminedRun, flops: Flops | None) -> Iterator[CheckResult]:
    """History and cost."""
    r = run.record
    if r.status == "done" and consistency.planned(r):
        if run.history is not None:
            wrong = consistency.in_history(run.history, r, run.setup)
            yield result_of("history", wrong, f"{len(run.history)} values in {len(r.stages)} stages")
        yield result_of("cost", consistency.in_cost(r, run.predictions), f"{len(r.cost.roles)} roles sum up")
        yield from bill_checks(run, flops)
