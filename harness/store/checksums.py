"""The seal of a record: sha256 of its own text and of the files beside it, so that no digit changes unseen.

Most figures can be recomputed from the predictions; seconds, losses or scores can't. The seal covers them all.
It is a checksum, not a signature: whoever rewrites a run can seal it anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

from harness.record import Record, Seal
from harness.store.backend import RECORD, Place

RECEIVED = "received.json"
UNSEALED = frozenset({RECORD, RECEIVED})
"""What a seal doesn't list: the record, which has a sum of its own, and the note of a run's arrival."""

_BLOCK = 1 << 20


def sealed(record: Record, folder: Path) -> bytes:
    """The text of the record's file, with the seal of the files that lie in `folder`."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in UNSEALED:
            with path.open("rb") as file:
                files[name] = digest(file)
    unsigned = _text(record.model_copy(update={"seal": Seal(record="", files=files)}))
    own = hashlib.sha256(unsigned).hexdigest()
    return _text(record.model_copy(update={"seal": Seal(record=own, files=files)}))


def broken(record: Record, place: Place) -> dict[str, str]:
    """The files of a sealed run that aren't as they were sealed, each with what is wrong; {} if all are."""
    assert record.seal is not None
    own, wrong = record.seal.record, {}
    text = place.read(f"{record.run_id}/{RECORD}")
    if hashlib.sha256(text.replace(_own(own), _own(""), 1)).hexdigest() != own:
        wrong[RECORD] = "its text isn't the one that was sealed"
    gone = absent(record, place)
    present = {name: there for name, there in place.files(record.run_id).items() if name not in UNSEALED}
    for name, expected in record.seal.files.items():
        if name not in present:
            wrong |= {} if name in gone else {name: "is missing"}
            continue
        with place.open(present[name]) as file:
            if digest(file) != expected:
                wrong[name] = "its bytes aren't those that were sealed"
    return wrong | {name: "came later than the seal" for name in sorted(present.keys() - record.seal.files.keys())}


def absent(record: Record, place: Place) -> list[str]:
    """The sealed files of a student that is left out as a whole, to save space or when it was sent."""
    sealed_files = record.seal.files if record.seal else {}
    student = [name for name in sealed_files if name.startswith("student/")]
    return [] if any(name in place.files(record.run_id) for name in student) else student


def digest(file: IO[bytes]) -> str:
    """sha256 of what a file holds, in hexadecimal; read in blocks."""
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return found.hexdigest()


def _text(record: Record) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _own(own: str) -> bytes:
    """The record's own sum as it stands in its text."""
    return f'"record": "{own}"'.encode()
