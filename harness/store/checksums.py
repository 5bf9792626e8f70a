"""The checksums of a run: sha256 of its record's text and of its other files, so that any change is detected.

They are in the record, under `seal`. Results of training a run again (`hkdbench reproduce`) are beside the runs, in
`.reproduced/<run_id>.<first 16 hex digits of the file's sha256>.json`: written once, and only valid with this sum and
with the record that they name.

 Most figures can be recomputed from the predictions. Seconds, losses and scores
can't; only the checksums protect them. They are not signatures: whoever modifies a run can write new ones.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from harness.errors import first_line
from harness.record import Checksums, Record, Reproduction, seal_of
from harness.store.backend import RECORD, REPRODUCED, RUN_ID, Backend

RECEIVED = "received.json"
OTHER_BYTES = "its bytes don't have the sha256 that the record states"
NOT_LISTED = frozenset({RECORD, RECEIVED})
"""Files without an entry in `seal.files`: the record, whose sum is `seal.record`, and the note about a submission."""

_BLOCK = 1 << 20


def with_checksums(record: Record, folder: Path) -> bytes:
    """The text of the record's file, with the checksums of the files in `folder`."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in NOT_LISTED:
            with path.open("rb") as file:
                files[name] = digest(file)
    unsigned = _text(record.model_copy(update={"seal": Checksums(record="", files=files)}))
    own = hashlib.sha256(unsigned).hexdigest()
    return _text(record.model_copy(update={"seal": Checksums(record=own, files=files)}))


def mismatches(record: Record, backend: Backend) -> dict[str, str]:
    """The files of a run that differ from its checksums, each with the reason; {} if none does."""
    assert record.seal is not None
    own, wrong = record.seal.record, {}
    text = backend.read(f"{record.run_id}/{RECORD}")
    if seal_of(text, own) != own:
        wrong[RECORD] = "its text doesn't have the sha256 that it states"
    gone = missing_student(record, backend)
    present = {name: there for name, there in backend.files(record.run_id).items() if name not in NOT_LISTED}
    for name, expected in record.seal.files.items():
        if name not in present:
            wrong |= {} if name in gone else {name: "is missing"}
            continue
        try:
            with backend.open(present[name]) as file:
                found = digest(file)
        except OSError as error:
            wrong[name] = f"can't be read: {first_line(error)}"
        else:
            wrong |= {} if found == expected else {name: OTHER_BYTES}
    return wrong | {
        name: "was added later: the record states no sha256 of it"
        for name in sorted(present.keys() - record.seal.files.keys())
    }


def missing_student(record: Record, backend: Backend) -> list[str]:
    """The listed files of a student, if all of them are missing: deleted to save space, or not sent."""
    listed = record.seal.files if record.seal else {}
    student = [name for name in listed if name.startswith("student/")]
    return [] if any(name in backend.files(record.run_id) for name in student) else student


def digest(file: IO[bytes]) -> str:
    """sha256 of a file's content, in hexadecimal; read in blocks."""
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return found.hexdigest()


# ------------------------------------------------------------------------------------------- attested results

_ATTESTED = re.compile(rf"{re.escape(REPRODUCED)}/({RUN_ID.pattern})\.([0-9a-f]{{16}})\.json")


def record_sum(record: Record, backend: Backend) -> str:
    """The sha256 that a run's record states of itself; that of its file if it is older and states none."""
    return record.seal.record if record.seal else hashlib.sha256(backend.read(f"{record.run_id}/{RECORD}")).hexdigest()


def attested(found: Reproduction) -> tuple[str, str]:
    """The name and the text of an attested result's file."""
    text = found.model_dump_json(indent=1) + "\n"
    return f"{REPRODUCED}/{found.run_id}.{hashlib.sha256(text.encode()).hexdigest()[:16]}.json", text


def attested_names(backend: Backend) -> dict[str, list[str]]:
    """The names of the files with attested results, by run; none is opened."""
    found: dict[str, list[str]] = {}
    for name in sorted(backend.attested()):
        if of_run := _ATTESTED.fullmatch(name):
            found.setdefault(of_run[1], []).append(name)
    return found


def reproductions(
    record: Record, backend: Backend, names: Sequence[str] | None = None
) -> tuple[list[Reproduction], list[str]]:
    """The attested results of a run, the oldest first, and what is wrong with those that can't be used.

    `names`: their files, if they are known.
    """
    found, wrong = [], []
    for name in attested_names(backend).get(record.run_id, []) if names is None else names:
        file = name.removeprefix(f"{REPRODUCED}/")
        try:
            text = backend.read(name)
            if hashlib.sha256(text).hexdigest()[:16] != name.split(".")[-2]:
                raise ValueError("its bytes aren't those that were written")
            one = Reproduction.model_validate_json(text)
        except Exception as error:
            wrong.append(f"the result of reproducing it is damaged: {file}: {first_line(error)}")
            continue
        if (one.run_id, one.record) != (record.run_id, record_sum(record, backend)):
            wrong.append(f"the result of reproducing it is of another record: {file}")
            continue
        found.append(one)
    return sorted(found, key=lambda one: one.provenance.finished), wrong


def _text(record: Record) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()
