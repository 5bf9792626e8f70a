"""A lock in a bucket, for machines that share nothing else: an object that its holder writes again and again.

Whoever waits takes it over once its text hasn't changed for `EXPIRED_SECONDS` by the waiting machine's own clock; so
clocks needn't agree. On S3 an object is only replaced if it is still the one that was read. On other filesystems two
machines that begin at the same moment may both get the lock.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from pydantic import BaseModel

BEAT_SECONDS = 20.0
EXPIRED_SECONDS = 90.0
"""A holder that has written nothing for so long is dead: killed with its machine, or cut off from the bucket."""
POLL_SECONDS = 1.0


class Holder(BaseModel):
    """The text of a lock's object."""

    holder: str
    machine: str
    """The local folder of the holder, see `machine_of`."""
    beat: int = 0


class Objects(Protocol):
    """What a lease needs from a bucket; the methods of `harness.store.object_storage.ObjectStorage`."""

    def current(self, name: str) -> tuple[bytes | None, str | None]:
        """An object's bytes and tag; None if there is none."""
        ...

    def replace(self, name: str, text: bytes, found: bytes | None, tag: str | None) -> bool:
        """Write an object if it is still the one that was found; False if it isn't."""
        ...

    def remove(self, name: str) -> None:
        """Delete an object."""
        ...


class Lease:
    """A lock that this process holds, and keeps writing from a thread."""

    def __init__(self, objects: Objects, name: str, held: Holder) -> None:
        self._objects, self._name, self._held = objects, name, held
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # the next one may get through
                found, tag = self._objects.current(self._name)
                if _read(found).holder != self._held.holder:  # we were silent for too long: it is another's now
                    return
                self._held = self._held.model_copy(update={"beat": self._held.beat + 1})
                self._objects.replace(self._name, _text(self._held), found, tag)

    def release(self) -> None:
        """Delete the object, if it is still ours."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            if _read(self._objects.current(self._name)[0]).holder == self._held.holder:
                self._objects.remove(self._name)


Watched = dict[str, tuple[bytes, float]]
"""By lock: the text that was found last, and since when it hasn't changed."""


def acquire(objects: Objects, name: str, machine: str, seconds: float, watched: Watched) -> Lease | None:
    """The lock of this name; None if another process is alive and has held it for this number of seconds.

    The caller is the only process of its `machine` that asks: a holder of the same machine is dead, and isn't waited
    for. `watched` is kept by the caller between calls. Raises `OSError` if the bucket can't be read or written.
    """
    until = time.monotonic() + seconds
    while True:
        found, tag = objects.current(name)
        now = time.monotonic()
        if found is not None and watched.get(name, (b"", 0.0))[0] != found:
            watched[name] = found, now
        if found is None or _read(found).machine == machine or now - watched[name][1] >= EXPIRED_SECONDS:
            ours = Holder(holder=uuid4().hex, machine=machine)
            if objects.replace(name, _text(ours), found, tag) and _read(objects.current(name)[0]) == ours:
                watched.pop(name, None)
                return Lease(objects, name, ours)
        if now >= until:
            return None
        time.sleep(max(0.0, min(POLL_SECONDS, until - now)))


def machine_of(folder: Path) -> str:
    """The identity of a local folder, made once and kept in it. Where that can't be, a new one with each call."""
    file, part = folder / ".machine", folder / f".tmp-machine-{uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(uuid4().hex)
        with suppress(FileExistsError):
            os.link(part, file)
        return file.read_text()
    except OSError:
        return uuid4().hex
    finally:
        with suppress(OSError):
            part.unlink()


def _text(holder: Holder) -> bytes:
    return holder.model_dump_json().encode()


def _read(text: bytes | None) -> Holder:
    """The holder; nobody if the text is none that we write."""
    try:
        return Holder.model_validate_json(text or b"")
    except ValueError:
        return Holder(holder="", machine="")
