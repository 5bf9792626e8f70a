"""The store: one folder per run, on a disk or in a bucket. Import `Store` from here."""

from harness.store.backend import Problem
from harness.store.schemas import (
    HISTORY,
    PREDICTIONS,
    HistoryRow,
    PredictionRow,
    history_frame,
    predictions_frame,
)
from harness.store.store import Store

__all__ = [
    "HISTORY",
    "PREDICTIONS",
    "HistoryRow",
    "PredictionRow",
    "Problem",
    "Store",
    "history_frame",
    "predictions_frame",
]
