"""What the tests of stores share."""

from __future__ import annotations

import pytest

from harness.store import Store
from helpers.runs import DATA, add


@pytest.fixture
def filled(store: Store) -> Store:
    """Two methods, three seeds, a failed run, and a second version of the data."""
    for seed in range(3):
        add(store, "finetune", [0, 1, 2, 5, 6 + seed % 2], seed)
        add(store, "offline_kd", 7 - seed, seed, splits=("test", "ood"))
    add(store, "broken", status="failed")
    add(store, "finetune", 4, seed=9, data=DATA.model_copy(update={"fingerprint": "b" * 64}), run_id="other-data")
    return store
