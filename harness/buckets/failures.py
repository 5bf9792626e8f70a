"""A bucket's errors in words: what it answered, and what to change. A slow one is told while it lasts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from harness.errors import first_line

T = TypeVar("T")
LOG = logging.getLogger("harness.store")
"""Without a handler, Python writes its warnings to the standard error."""
NOTE_SECONDS = 5.0
PAUSES = (5.0, 20.0, 60.0)
"""Seconds before each further attempt to write a run's results, which took long to compute."""
OTHER = "choose another store with --store or HKDBENCH_STORE"


def reason(error: Exception, url: str, rights: str = "list, read, write and delete", other: str = OTHER) -> str:
    """What the bucket answered and what to change, for the end of an error's text."""
    said = first_line(error)
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        keys = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE" if url.startswith("s3") else "its variables"
        return (
            f"access denied ({_status(error)}{said}); expected credentials ({keys}, or the machine's role) that may "
            f"{rights} there: set them, change the bucket's policy, or {other}"
        )
    if isinstance(error, FileNotFoundError):
        return f"{said}; expected an existing bucket: fix that, or {other}"
    if isinstance(error, OSError | TimeoutError) or is_lost(error):
        return f"{said}; check its address (AWS_ENDPOINT_URL) and the network, fix that, or {other}"
    return f"{said}; fix that, or {other}"


def _status(error: BaseException) -> str:
    """`HTTP 403: `, if an error of botocore caused this one."""
    answer = getattr(error.__cause__ or error, "response", None)
    code = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return f"HTTP {code}: " if code else ""


def is_lost(error: BaseException) -> bool:
    """Whether the connection failed: the same request may succeed later."""
    return isinstance(error, ConnectionError | TimeoutError) or any(
        word in type(error).__name__ for word in ("Connect", "Timeout", "Closed", "Reset", "Disconnected")
    )


@contextmanager
def noted(url: str) -> Iterator[None]:
    """Warn if what is done within the context takes more than `NOTE_SECONDS`: no answer, or a slow one."""
    timer = threading.Timer(
        NOTE_SECONDS, LOG.warning, (f"waiting for {url}: no answer for {NOTE_SECONDS:.0f} s; it is tried again",)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def persistently(
    work: Callable[[], T], url: str, pauses: Sequence[float] | None = None, again: str = "the results are written again"
) -> T:
    """Do it, and again after each of the pauses (`PAUSES`) while the connection fails. The last error is raised."""
    for pause in PAUSES if pauses is None else pauses:
        try:
            return work()
        except Exception as error:
            if not is_lost(error):
                raise
            LOG.warning("%s: %s; %s in %.0f s", url, first_line(error), again, pause)
        time.sleep(pause)
    return work()
