"""A ranking whose names would do harm if they were not escaped."""

from __future__ import annotations

import pytest

from harness.leaderboard.leaderboard import tables
from harness.leaderboard.schema import Filters, Row
from harness.store import Store
from helpers.runs import EVIL, add


@pytest.fixture
def evil(varied_store: Store) -> list[Row]:
    settings = {"note": 'a_b & 5% $x$ #1 {y} ~ ^ \\ "q" |*'}
    add(varied_store, EVIL, 8, run_id="evil-0", settings=settings)
    add(varied_store, EVIL, seed=1, status="failed", run_id="evil-1", settings=settings)
    return [row for found in tables(varied_store, Filters(baseline="finetune@S")) for row in found.rows]
