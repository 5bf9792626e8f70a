"""The estimate of what a plan will do and cost, as text."""

from __future__ import annotations

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
    lines += [f"  warning: {warning}" for warning in priced["warnings"]]
    return "\n".join(lines)
