"""Prices: estimated before runs from FLOPs and a worker's speed, and of finished runs from their time."""

from __future__ import annotations

import json

import pytest

from harness.config import ClusterConfig
from harness.planning.cost import in_hours
from harness.record import Cost, parse_record
from harness.report.plan import dry_run_text, total_price
from harness.report.run import price, record_text
from helpers.runs import provenance, record


def test_hours_and_price_follow_from_flops() -> None:
    """3.6e18 FLOP at 100 TFLOP/s are 36,000 s."""
    cluster = ClusterConfig(tflops_per_worker=100, price_per_hour=2.5)
    assert in_hours(cluster, 3.6e18) == {"worker_hours": 10, "price": 25}
    assert in_hours(ClusterConfig(tflops_per_worker=100), 3.6e18) == {"worker_hours": 10, "price": None}
    assert in_hours(ClusterConfig(price_per_hour=2.5), 3.6e18) == {"worker_hours": None, "price": None}


def test_a_dry_run_sums_prices() -> None:
    row = {"run_id": "a", "budget": 64, "train_flops": 3.6e18, "worker_hours": 10.0, "price": 25.0}
    unknown = row | {"worker_hours": None, "price": None}
    assert dry_run_text([row, row]).endswith("(estimated); 20.00 worker-hours of training, price 50.00")
    assert dry_run_text([unknown]).endswith("TFLOP of training (estimated)")
    assert total_price([row, unknown]) == ""


def test_a_finished_run_has_a_price() -> None:
    """Two workers for half an hour at 3 an hour."""
    done = record(
        cost=Cost(total_seconds=1800, data_seconds=12.34),
        config={"cluster": {"price_per_hour": 3.0}},
        provenance=provenance().model_copy(update={"workers": 2}),
    )
    assert price(done) == pytest.approx(3.0)
    text = record_text(done)
    assert "price: 3.00" in text
    assert "waited for data: 12.3 s" in text
    assert price(done.model_copy(update={"config": {}})) is None
    assert price(done.model_copy(update={"status": "failed"})) is None


def test_an_older_record_says_nothing_of_data() -> None:
    old = record()
    assert "data_seconds" not in json.loads(old.model_dump_json())["cost"]
    assert parse_record(old.model_dump_json()) == old
    assert "waited for data" not in record_text(old)
