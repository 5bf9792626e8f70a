"""The estimate of what a plan will do and cost, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.record import Mix
from harness.report.run import mix_text


def to_text(priced: dict[str, Any]) -> str:
    """The result of `harness.planning.cost.of` as text."""
    lines = [
        priced["run_id"],
        f"  student {priced['student']}, {priced['parameters']:,} parameters",
        "  data: " + ", ".join(f"{split} {size}" for split, size in priced["data"].items()),
    ]
    if priced["skipped"]:
        left_out = ", ".join(f"{split} {count}" for split, count in priced["skipped"].items())
        lines.append(f"  left out, image missing or damaged: {left_out}")
    if other := priced["trained_on"]:
        sizes = ", ".join(f"{split} {size}" for split, size in other["data"].items())
        lines.append(f"  trains on {other['benchmark']}: {sizes}")
    for stage in priced["stages"]:
        lines.append(
            f"  stage {stage['name']}: {stage['steps']} steps, {stage['examples']} examples, share {stage['share']:g}"
        )
        for name, role in stage["roles"].items():
            trains = (
                "trains" if role["trainable"] else f"averages {role['average_of']}" if role["average_of"] else "frozen"
            )
            lines.append(
                f"    {name:12} {role['rung']:4} from {role['weights']:16} {trains}  "
                f"{role['parameters']:>13,} parameters  {role['flops'] / 1e12:10.3f} TFLOP"
            )
        if stage["mix"]:
            lines.append(f"    {mix_text(Mix(**stage['mix']))}")
    if not priced["stages"]:
        lines.append("  no training: the model is scored unchanged")
    lines.append(
        f"  training {priced['train_flops'] / 1e12:.3f} TFLOP; memory per worker at most "
        f"{priced['peak_bytes'] / 2**20:.0f} MiB, of which weights and optimizer {priced['memory_bytes'] / 2**20:.0f} "
        "MiB (estimated)"
    )
    lines += [f"  {text} (estimated)" for text in [price_text(priced["worker_hours"], priced["price"])] if text]
    lines += [f"  warning: {warning}" for warning in priced["warnings"]]
    return "\n".join(lines)


def price_text(worker_hours: float | None, price: float | None) -> str:
    """`12.50 worker-hours of training, price 31.25`; empty if the hours aren't known."""
    if worker_hours is None:
        return ""
    return f"{worker_hours:.2f} worker-hours of training" + ("" if price is None else f", price {price:,.2f}")


def dry_run_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The runs of a suite, one line each, and their sum."""
    lines = [
        f"{row['run_id']:70}  {row['budget']:>10,} examples  {row['train_flops'] / 1e12:8.2f} TFLOP"
        + ("" if row["worker_hours"] is None else f"  {row['worker_hours']:8.2f} h")
        + ("" if row["price"] is None else f"  {row['price']:10,.2f}")
        for row in rows
    ]
    flops = sum(row["train_flops"] for row in rows)
    return "\n".join([*lines, f"{len(rows)} runs, {flops / 1e12:.2f} TFLOP of training (estimated){total_price(rows)}"])


def total_price(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sum of the rows' hours and prices, to go behind another sum; empty if they aren't known."""
    hours, price = (_sum([row[name] for row in rows]) for name in ("worker_hours", "price"))
    text = price_text(hours, price)
    return f"; {text}" if text else ""


def _sum(numbers: Sequence[float | None]) -> float | None:
    """The sum; None if one is unknown."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
