"""Ctrl-C and SIGTERM: none is lost, and one request that arrives twice stops once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from harness import events


@pytest.fixture
def listening() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    events.listen()
    yield
    for number, handler in before:
        signal.signal(number, handler)
    sys.unraisablehook = hook
    events._stops.clear()


class Careless:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)


def test_an_interrupt_that_a_destructor_drops_comes_again(listening: None) -> None:
    def work() -> None:
        Careless()  # Python can't raise from its destructor
        for _ in range(1000):
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert events.stopped()


def test_an_interrupt_that_a_library_swallows_is_raised_at_the_next_event(listening: None) -> None:
    events.raise_if_stopped()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except BaseException:
        pass
    with pytest.raises(KeyboardInterrupt):
        events.raise_if_stopped()


def test_a_second_sigterm_counts_unless_it_comes_at_once(listening: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(events, "ONE_REQUEST_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
