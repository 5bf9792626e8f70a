"""The seal of a record: sha256 of its own text and of the files beside it, so that no digit changes unseen.

Most figures can be recomputed from the predictions; seconds, losses or scores can't. The seal covers them all.
It is a checksum, not a signature: whoever rewrites a run can seal it anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.record import Record, Seal

RECORD, RECEIVED = "record.json", "received.json"
UNSEALED = frozenset({RECORD, RECEIVED})
"""What a seal doesn't list: the record, which has a sum of its own, and the note of a run's arrival."""

_BLOCK = 1 << 20


def sealed(record: Record, folder: Path) -> bytes:
    """The text of the record's file, with the seal of the files that lie in `folder`."""
    files = {name: file_digest(folder / name) for name in _files(folder)}
    unsigned = record.model_copy(update={"seal": Seal(record="", files=files)})
    digest = _digest(_text(unsigned))
    return _text(unsigned.model_copy(update={"seal": Seal(record=digest, files=files)}))


def broken(record: Record, folder: Path) -> dict[str, str]:
    """The files of a sealed run that aren't as they were sealed, each with what is wrong; {} if all are."""
    assert record.seal is not None
    wrong = {}
    own = record.seal.record
    text = (folder / RECORD).read_bytes()
    if _digest(text.replace(_own(own), _own(""), 1)) != own:
        wrong[RECORD] = "its text isn't the one that was sealed"
    present = set(_files(folder))
    for name, digest in record.seal.files.items():
        if name not in present:
            wrong[name] = "is missing"
        elif file_digest(folder / name) != digest:
            wrong[name] = "its bytes aren't those that were sealed"
    return wrong | {name: "came later than the seal" for name in sorted(present - record.seal.files.keys())}


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal; read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) not in UNSEALED)


def _text(record: Record) -> bytes:
    return (record.model_dump_json(indent=1) + "\n").encode()


def _own(digest: str) -> bytes:
    """The record's own sum as it stands in its text."""
    return f'"record": "{digest}"'.encode()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
